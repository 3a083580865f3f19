"""A feature: what it fires on, in numbers and in text."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.browser.parameters import Parameters
from extraction_assets.browser.shown.charts import activation_histogram
from extraction_assets.browser.shown.feature_parts import (
    Examples,
    FeatureView,
    ShownExample,
    Statistics,
    shown_example,
)
from extraction_assets.browser.shown.feature_reads import (
    Around,
    around,
    directions_of,
    flags_of,
    label_of,
    provenance_of,
    relations_of,
)
from extraction_assets.browser.shown.further_ranges import further_ranges
from extraction_assets.browser.shown.intervals import feature_intervals
from extraction_assets.database.queries.examples import Draw, Example, draws_of, examples_of, find_feature
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.queries.labels import MARKS
from extraction_assets.database.queries.one_feature import special_ids, stored_examples
from extraction_assets.engine.selection.intervals import OF_ALL
from extraction_assets.engine.statistics.rows_and_sentences import NO_DRAWS, unknown_sizes

WIDTHS = ("10", "20", "40", "all")
"""Tokens shown on each side of the strongest one."""
TOP, MOST_TOP = 20, 1_000
"""Strongest examples shown at first, and at most."""


WHOLE_TOKENS, _WHOLE_SAMPLES = 12_000, 90
"""Tokens of whole samples on one page, and how many samples there may be."""


class Reading(NamedTuple):
    """How texts are to be read."""

    width: int | None = 10
    """Tokens on each side; None for the whole sample."""
    marks: bool = False
    """Whether white space is visible, every space of it."""
    top: int = TOP
    """Strongest examples shown."""
    drawn: int | None = None
    """Draws shown of each interval; None for all."""

    @property
    def lines(self) -> bool:
        """Whether a text stands in the lines in which it is written."""
        return self.width is None

    @property
    def window(self) -> str:
        """The width as an address has it."""
        return "all" if self.width is None else str(self.width)

    def fitted(self, max_length: int) -> "Reading":
        """With fewer examples if these are whole samples, too long for one page; more are asked for by ``top``."""
        if self.width is not None or max_length * _WHOLE_SAMPLES <= WHOLE_TOKENS:
            return self
        fitting = max(2, WHOLE_TOKENS // max_length)
        return self._replace(top=min(TOP, fitting // 2) if self.top == TOP else self.top, drawn=1)

    def parameters(self) -> dict[str, str | int | None]:
        """What an address needs for the same reading."""
        return {
            "window": None if self.window == WIDTHS[0] else self.window,
            "marks": 1 if self.marks else None,
        }


def reading_of(parameters: Parameters, top: int = TOP) -> Reading:
    """What an address asks for; ``top`` examples if it does not say. Raises BadRequestError."""
    width = parameters.choice("window", WIDTHS, WIDTHS[0])
    given_top = parameters.integer("top", 1, MOST_TOP)
    return Reading(None if width == "all" else int(width), parameters.flag("marks"), given_top or top)


class FeaturePage(NamedTuple):
    """The page of the server: the feature, and how it is read."""

    feature: FeatureView
    reading: Reading
    around: Around

    @property
    def name(self) -> str:
        """As the page that compares features has it."""
        return f"{self.feature.extraction}/{self.feature.sae}/{self.feature.neuron_index}"

    @property
    def most_top(self) -> int:
        """Strongest examples that a page shows at most."""
        return MOST_TOP

    @property
    def more_top(self) -> int | None:
        """How many strongest examples the page can show, if these are more than it does."""
        most = min(self.feature.examples.stored, MOST_TOP)
        return most if most > len(self.feature.examples.top) else None

    @property
    def marks(self) -> tuple[str, ...]:
        """What the feature can be marked as."""
        return MARKS

    @property
    def windows(self) -> tuple[str, ...]:
        """The widths that an address may have."""
        return WIDTHS


def feature_page(request: PageRequest) -> FeaturePage:
    """A feature and where to go from it."""
    path, reading = request.path, reading_of(request.parameters)
    extraction = find_extraction(request.connection, path["extraction"], path["sae"])
    reading = reading.fitted(extraction.max_length)
    view = feature_view(request.connection, extraction, path["neuron"], reading)
    return FeaturePage(view, reading, around(request.connection, extraction, path["neuron"]))


def feature_view(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    neuron_index: int,
    reading: Reading | None = None,
    *,
    draws: bool = True,
) -> FeatureView:
    """All that is known of one feature; ``extraction`` is its row of ``extractions``. Without ``draws`` the intervals
    have no examples and there are no random ones. Raises UnknownResultError."""
    reading = reading or Reading()
    row = find_feature(connection, extraction.id, neuron_index)
    top = examples_of(connection, extraction.id, neuron_index, reading.top)
    stored = stored_examples(connection, extraction.id, neuron_index)
    special = special_ids(connection, extraction.corpus_id)
    drawn = draws_of(connection, extraction.id, neuron_index) if draws else None
    further = further_ranges(connection, extraction, neuron_index, row.max_activation or 0.0) if draws else ()
    missing, random_missing = _missing_draws(extraction.settings, row, drawn)
    relations, relations_missing = relations_of(connection, extraction, neuron_index)
    directions, directions_missing = directions_of(connection, extraction, neuron_index)
    return FeatureView(
        extraction=extraction.name,
        sae=extraction.sae,
        neuron_index=neuron_index,
        label=label_of(connection, extraction, neuron_index),
        statistics=Statistics(*(getattr(row, name) for name in Statistics._fields)),
        unknown=unknown_sizes([row]),
        flags=flags_of(connection, extraction, neuron_index) if relations else None,
        histogram=activation_histogram(row.histogram),
        examples=examples_shown(row, top, stored, drawn, reading, special)._replace(
            further=further, missing=missing, random_missing=random_missing
        ),
        relations=relations,
        relations_missing=relations_missing,
        directions=directions,
        directions_missing=directions_missing,
        provenance=provenance_of(connection, extraction),
    )


def examples_shown(
    row: sa.Row[Any],
    top: list[Example],
    stored: int,
    draws: list[Draw] | None,
    reading: Reading,
    special_ids: Collection[int] | None,
) -> Examples:
    """The examples of a feature in context. ``row`` is its row of ``features``; ``stored`` strongest ones there are;
    ``draws`` is None where they were not read; ``special_ids`` are those of the corpus."""
    scale = row.max_activation or 0.0

    def shown(example: Example | Draw) -> ShownExample:
        return shown_example(example, width=reading.width, scale=scale, special_ids=special_ids)

    found = feature_intervals(row.interval_samples, ((draw.interval, draw) for draw in draws or ()))
    of_all = [draw for draw in draws or () if draw.interval == OF_ALL]
    return Examples(
        top=tuple(map(shown, top)),
        stored=stored,
        intervals=tuple(one.showing(tuple(map(shown, one.examples[: reading.drawn]))) for one in found),
        random=tuple(map(shown, of_all[: reading.drawn and 5 * reading.drawn])),
    )


def _missing_draws(
    settings: Mapping[str, Any], row: sa.Row[Any], draws: list[Draw] | None
) -> tuple[str | None, str | None]:
    """Why examples of intervals, and random ones, are not there though they were read and the feature fires."""
    if draws is None or not row.activation_count:
        return None, None
    of_intervals, of_all = (any((draw.interval == OF_ALL) == wanted for draw in draws) for wanted in (False, True))
    return (
        None if of_intervals else _not_drawn(settings, "interval_examples"),
        None if of_all else _not_drawn(settings, "random_examples"),
    )


def _not_drawn(settings: Mapping[str, Any], size: str) -> str:
    asks_for_none = settings.get("statistics") == "full" and settings.get(size) == 0
    return f"none are drawn: {size} is 0" if asks_for_none else NO_DRAWS


PAGE = Page("/{extraction}/{sae}/{neuron:number}", "feature.html", feature_page)
