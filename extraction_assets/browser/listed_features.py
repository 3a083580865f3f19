"""The rows of a feature list: what can be read of a feature without opening it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.shown.context import Context, context, special_positions
from extraction_assets.database.queries import feature_rows as queries
from extraction_assets.database.queries.feature_filter import Found, Listing
from extraction_assets.database.queries.feature_list import ListedRow
from extraction_assets.database.queries.one_feature import special_ids

AFTER = 12
"""Tokens after the strongest one."""
BEFORE = 26
"""Characters before it, about: a column shows some sixty, and the strongest token must be among them."""


class ListedExample(NamedTuple):
    """The strongest example of a feature, in context."""

    sample_index: int
    document_id: str
    max_activation: float
    first: int
    """Position of the first token below."""
    tokens: list[str]
    """Those around the strongest one."""
    positions: list[int]
    """Where the feature fires, strongest first."""
    activations: list[float]
    special: list[int]
    """Positions of special tokens among those below."""

    def context(self) -> Context:
        """The tokens for a page, shaded."""
        shown = dict(zip(self.positions, self.activations, strict=True))
        near = {at - self.first: shown[at] for at in self.positions if 0 <= at - self.first < len(self.tokens)}
        special = [at - self.first for at in self.special]
        return context(
            self.tokens, list(near), list(near.values()), width=None, scale=self.max_activation, special=special
        )


class ListedFeature(NamedTuple):
    """One feature."""

    neuron_index: int
    label: str | None
    mark: str | None
    flags: list[str]
    density: float
    """Share of the tokens on which it fires."""
    maximum: float | None
    mean: float | None
    std: float | None
    hits: int | None
    """How often a search found it."""
    tokens: list[str]
    """Its top tokens; the strongest tokens of its strongest examples where those are not computed."""
    example: ListedExample | None


def listed_features(
    connection: sa.Connection,
    extraction: sa.Row[Any],
    listing: Listing,
    rows: Sequence[ListedRow],
    *,
    top_tokens: bool,
    sorted_by_hits: bool,
) -> list[ListedFeature]:
    """The rows with labels, flags, tokens and an example each; ``top_tokens`` if they are computed."""
    numbers = [row.neuron_index for row in rows]
    if not numbers:
        return []
    labels = {row.neuron_index: row for row in connection.execute(queries.row_labels_select(listing, numbers))}
    examples, tokens = _examples(connection, extraction, numbers)
    if top_tokens:
        tokens = _pairs(connection, queries.top_tokens_select(extraction.id, numbers))
    flags = _pairs(connection, queries.row_flags_select(extraction.id, numbers)) if top_tokens else {}
    hits = _hits(connection, listing.found, rows, sorted_by_hits=sorted_by_hits)
    found = []
    for row in rows:
        number = row.neuron_index
        label = labels.get(number)
        found.append(
            ListedFeature(
                number,
                None if label is None else label.label,
                None if label is None else label.mark,
                flags.get(number, []),
                row.density,
                row.maximum,
                row.mean,
                row.std,
                hits.get(number),
                tokens.get(number, []),
                examples.get(number),
            )
        )
    return found


def _hits(
    connection: sa.Connection, found: Found | None, rows: Sequence[ListedRow], *, sorted_by_hits: bool
) -> dict[int, int]:
    """How often a search found each of the rows."""
    if found is None:
        return {}
    if sorted_by_hits:
        return {row.neuron_index: int(row.sorted_by or 0) for row in rows}
    query = queries.hits_select(found, [row.neuron_index for row in rows])
    return {row.neuron_index: int(row.hits) for row in connection.execute(query)}


def _pairs(connection: sa.Connection, query: sa.Select[Any]) -> dict[int, list[str]]:
    """The texts of each feature, in order."""
    found: dict[int, list[str]] = {}
    for number, text in connection.execute(query):
        found.setdefault(number, []).append(text)
    return found


def _examples(
    connection: sa.Connection, extraction: sa.Row[Any], numbers: Sequence[int]
) -> tuple[dict[int, ListedExample], dict[int, list[str]]]:
    """The strongest example of each feature, and the different strongest tokens of its first ones."""
    stored = connection.execute(queries.examples_select(extraction.id, numbers)).all()
    wanted = sorted({row.example[0] for row in stored if row.example})
    samples = {
        row.sample_index: row for row in connection.execute(queries.samples_select(extraction.corpus_id, wanted))
    }
    ids = special_ids(connection, extraction.corpus_id)
    examples, tokens = {}, {}
    for number, example, *others in stored:
        if not example:
            continue
        sample_index, max_activation, token, positions, activations = example
        tokens[number] = list(dict.fromkeys([token, *filter(None, others)]))[: queries.SHOWN_TOKENS]
        if sample_index in samples:
            sample = samples[sample_index]
            first, stop = listed_window(sample.tokens, positions[0])
            texts = sample.tokens[first:stop]
            special = special_positions(texts, sample.token_ids[first:stop], ids)
            shown = (first, texts, positions, activations, [first + at for at in special])
            examples[number] = ListedExample(sample_index, sample.document_id, max_activation, *shown)
    return examples, tokens


def listed_window(tokens: Sequence[str], strongest: int) -> tuple[int, int]:
    """(first, one past the last) position of what a row shows around its strongest token."""
    first, characters = strongest, 0
    while first > 0 and characters + len(tokens[first - 1]) <= BEFORE:
        first -= 1
        characters += len(tokens[first])
    return first, min(len(tokens), strongest + AFTER + 1)
