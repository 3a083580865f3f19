"""The page of a whole result: what was run, whether it can be trusted, how features are spread, which to look at."""

import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import markupsafe
import sqlalchemy as sa

from extraction_assets.assets.report.record import Recorded, Speed
from extraction_assets.browser.links import Links
from extraction_assets.browser.one_file import render_file
from extraction_assets.browser.scatter import Scatter, scatter
from extraction_assets.browser.shown.feature_parts import Provenance, ShownExample, flag, shown_example
from extraction_assets.browser.shown.feature_reads import missing_relations, provenance_of
from extraction_assets.database.queries.examples import Example, examples_of, find_feature
from extraction_assets.database.queries.feature_counts import feature_cells
from extraction_assets.database.queries.feature_filter import Listing, Range
from extraction_assets.database.queries.labels import Label, labels_of
from extraction_assets.database.queries.one_feature import special_ids
from extraction_assets.database.queries.overview import (
    DENSE,
    Noted,
    NotedGroup,
    Shares,
    flagged_select,
    shares,
    worth_a_look,
)
from extraction_assets.engine.statistics.rows_and_sentences import shown_sizes, unknown_sizes
from extraction_assets.execution.pictures import Bar, bar_chart

_FLAGS = {
    "one_token": "On one token",
    "first_position": "At the first position",
    "duplicate": "Duplicates",
}
MOST_OF_A_FLAG = 8

Pictures = list[tuple[str, list[Bar]]]
"""Histograms by their titles, that of densities first."""

WINDOW = 10
"""Tokens on each side of an example's strongest one."""


class LookedAt(NamedTuple):
    """A feature that is worth a look."""

    neuron_index: int
    why: str
    label: str
    token_frequency: float
    max_activation: float | None
    sizes: str
    example: ShownExample | None
    """The strongest one."""


class Group(NamedTuple):
    """Features that are worth a look for one kind of reason."""

    title: str
    about: str
    features: list[LookedAt]


class ReportView(NamedTuple):
    """What the page shows."""

    name: str
    sae: str
    published: str | None
    """Release and id of the SAE, where its settings named it so."""
    provenance: Provenance
    settings: str
    """As JSON in lines."""
    shares: Shares
    dense: float
    """Share of the tokens above which a feature is dense."""
    plot: Scatter | None
    pictures: list[tuple[str, markupsafe.Markup]]
    recorded: Recorded
    speed: Speed | None
    groups: list[Group]
    unknown: str | None
    """Which statistics are not known in this result."""


def render_report(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    pictures: Pictures,
    recorded: Recorded,
    speed: Speed | None,
    links: Links,
) -> str:
    """The page of one merged (extraction, SAE), with pictures by their titles."""
    view = report_view(connection, extraction, pictures, recorded, speed)
    return render_file("extraction_report.html", view=view, links=links)


def report_view(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    pictures: Pictures,
    recorded: Recorded,
    speed: Speed | None,
) -> ReportView:
    """What the page shows of one merged (extraction, SAE)."""
    groups = [*worth_a_look(connection, extraction.id), *_flagged(connection, extraction)]
    rows = {
        one.neuron_index: find_feature(connection, extraction.id, one.neuron_index)
        for group in groups
        for one in group.features
    }
    labels = labels_of(connection, extraction.name, extraction.sae, list(rows))
    cells = feature_cells(connection, Listing(extraction.id, extraction.name, extraction.sae))
    sae = (extraction.settings.get("saes") or {}).get(extraction.sae) or {}
    return ReportView(
        name=extraction.name,
        sae=extraction.sae,
        published=f"{sae['release']}/{sae['sae_id']}" if sae.get("release") else None,
        provenance=provenance_of(connection, extraction),
        settings=json.dumps(extraction.settings, indent=2, ensure_ascii=False),
        shares=shares(connection, extraction.id),
        dense=DENSE,
        plot=scatter(cells, Range(), Range()),
        # labels and numbers of our own, nothing to escape
        pictures=[(title, markupsafe.Markup(bar_chart(bars))) for title, bars in pictures],
        recorded=recorded,
        speed=speed,
        groups=[_group(connection, extraction, group, rows, labels) for group in groups],
        unknown=unknown_sizes(rows.values()) or None,
    )


def _flagged(connection: sa.Connection, extraction: sa.Row[Any]) -> Iterator[NotedGroup]:
    """Features with a flag of the current result; dead and dense ones have groups and numbers of their own."""
    if missing_relations(connection, extraction)[0] is None:
        return
    for name, title in _FLAGS.items():
        rows = connection.execute(flagged_select(extraction.id, name, MOST_OF_A_FLAG))
        noted = [Noted(index, flag(name, detail).says) for index, detail in rows]
        if noted:
            yield NotedGroup(title, "by their flags, the strongest first", noted)


def _shown(example: Example, scale: float, special_ids: Collection[int] | None) -> ShownExample:
    return shown_example(example, width=WINDOW, scale=scale, special_ids=special_ids)


def _group(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    group: NotedGroup,
    rows: dict[int, sa.Row[Any]],
    labels: dict[int, Label],
) -> Group:
    found, special = [], special_ids(connection, extraction.corpus_id)
    for index, why in group.features:
        row = rows[index]
        examples = examples_of(connection, extraction.id, index, 1)
        found.append(
            LookedAt(
                index,
                why,
                (labels[index].label or labels[index].mark or "") if index in labels else "",
                row.token_frequency,
                row.max_activation,
                shown_sizes(row),
                _shown(examples[0], row.max_activation, special) if examples else None,
            )
        )
    return Group(group.title, group.about, found)
