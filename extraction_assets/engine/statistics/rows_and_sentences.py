"""Statistics as rows, tables and sentences: what follows from the descriptions for the database, pages and people."""

from collections.abc import Collection, Iterable
from typing import Any

from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics

NO_DRAWS = "not computed: draws are made with `statistics: full`, and this result is from before or without them"


def feature_rows(statistics: FeatureStatistics) -> list[dict[str, Any]]:
    """The database's columns for each feature, {column: value}; one by one, so for a few features."""
    dead = (statistics.sample_count == 0).tolist()
    columns = {}
    for one in STATISTICS:
        known = getattr(statistics, one.name) is not None
        for column in one.columns:
            values = column.values(statistics).tolist() if known else [None] * len(dead)
            pairs = zip(values, dead, strict=True)
            columns[column.name] = [None if column.nullable and never else value for value, never in pairs]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def statistics_table() -> str:
    """A Markdown table of all statistics, for docs/database.md."""
    lines = ["| column | type | meaning | from | merged by |", "| --- | --- | --- | --- | --- |"]
    for one in STATISTICS:
        shape = f"{one.dtype} [F]" if one.size is None else f"{one.dtype} [F, {one.size}]"
        for column in one.columns:
            kind = column.type + (", NULL where it never fires" if column.nullable else "")
            lines.append(f"| `{column.name}` | {kind} | {column.meaning} | `{one.name}`, {shape} | {one.merge} |")
    return "\n".join(lines) + "\n"


def shown_sizes(feature: Any) -> str:
    """How strongly a feature fires, as pages show it; ``feature`` is a row of the table ``features``."""
    values = [(column, getattr(feature, column.name, None)) for one in STATISTICS for column in one.columns]
    return ", ".join(column.shown.format(value) for column, value in values if column.shown and value is not None)


def unknown_sizes(features: Iterable[Any], columns: Collection[str] | None = None) -> str | None:
    """One sentence on the shown statistics, or those of ``columns``, that are NULL although some of these rows of the
    table ``features`` fire; None if there are none. Earlier versions did not count them."""
    firing = [feature for feature in features if feature.activation_count]
    later = [column.name for one in STATISTICS if one.added_later for column in one.columns if column.shown]
    chosen = later if columns is None else columns
    unknown = [name for name in chosen if any(getattr(feature, name) is None for feature in firing)]
    if not unknown:
        return None
    verb = "is" if len(unknown) == 1 else "are"
    what = f"{' and '.join(unknown)} {verb} not known in this result"
    return f"{what}: some of its chunks are of an earlier version, which did not count that"


def were_drawn(feature: Any) -> bool:
    """Whether a result has draws, by any of its rows of the table ``features``: the pass that makes them counts the
    samples of each interval too."""
    return feature.interval_samples is not None
