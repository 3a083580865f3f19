"""What is exported of one (extraction, SAE): its features in batches, from one state of the database.

Memory is that of up to ``FEATURES_AT_ONCE`` features and of the samples that are kept, whatever the number of features.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from extraction_assets.database.queries import exported
from extraction_assets.database.queries.directions import Logits, TokenLogit, find_directions
from extraction_assets.database.queries.directions import Neighbour as NearestRow
from extraction_assets.database.queries.labels import Label, labels_of
from extraction_assets.database.queries.relations import Neighbour, Neighbours, find_relations
from extraction_assets.exports.checkpoints_and_files import Declared, Decoder, read_decoder, stored_features
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.exported_rows import Batch, ExportedDraw, ExportedExample, ListTexts, TopToken
from extraction_assets.exports.samples import SampleText, SampleTexts

if TYPE_CHECKING:
    from extraction_assets.planning.stored_result import StoredFeatures

FEATURES_AT_ONCE = 64
"""Features that are read by one query each of what they have; fewer where their examples may be long."""
_FIRINGS_AT_ONCE = 4_000_000  # of features that fire on every token: some 300 MB
_CHARACTERS_AT_ONCE = 1_500_000  # some 20,000 examples of few firings


class ExportSource:
    """What is merged of one SAE, through a connection whose transaction sees one state.

    ``chosen`` are the features to export, ascending, None for all. ``declared`` is what the project declares of the
    extraction, None where it declares none of this name: then neither weights nor stored SAE features can be read.
    """

    def __init__(
        self,
        connection: sa.Connection,
        extraction: sa.Row[Any],
        chosen: Sequence[int] | None = None,
        declared: Declared | None = None,
    ) -> None:
        self.connection, self.extraction, self.declared = connection, extraction, declared
        self.neuron_indices: Sequence[int] = range(extraction.latent_dim)
        if chosen is not None:
            self.neuron_indices = _known(chosen, extraction)
        self.is_whole = chosen is None
        self.corpus = connection.execute(exported.corpus_select(extraction.corpus_id)).one()
        self.relations = find_relations(connection, extraction.id)
        """What relations were counted of; None where they are not of this result."""
        self.directions = find_directions(connection, extraction.name, extraction.sae)
        """What the weights gave; None where that was not computed."""
        self.samples = SampleTexts(connection, extraction.corpus_id)

    @cached_property
    def stored_features(self) -> "StoredFeatures | None":
        """All SAE features of the result; None where they are not stored."""
        return stored_features(self.declared, self.extraction)

    @cached_property
    def decoder(self) -> Decoder:
        """The SAE's decoder rows, or why there are none."""
        return read_decoder(self.declared, self.extraction)

    @property
    def title(self) -> str:
        """``NAME/SAE``."""
        return f"{self.extraction.name}/{self.extraction.sae}"

    def identity(self) -> dict[str, Any]:
        """What the files of an export follow from: another value if any of it is another."""
        relations, directions = self.relations, self.directions
        labels = self.connection.execute(exported.labels_state_select(self.extraction.name, self.extraction.sae)).one()
        return {
            "extraction": self.extraction.name,
            "sae": self.extraction.sae,
            "examples": self.extraction.fingerprint,
            "relations": None if relations is None else f"{relations.scope} {relations.finished_at}",
            "directions": None if directions is None else directions.fingerprint,
            "labels": f"{labels[0]} {labels[1]}" if labels[0] else None,
        }

    def batches(self, size: int) -> Iterator[Batch]:
        """The features in batches of ``size``; nothing is read."""
        for number, first in enumerate(range(0, len(self.neuron_indices), size)):
            yield Batch(number, self.neuron_indices[first : first + size])

    def read(self, neuron_indices: Sequence[int], *, draws: bool = False) -> "Iterator[ExportedFeature]":
        """Features in their order; with ``draws`` the samples of draws are at hand too."""
        for chosen in self._groups(neuron_indices):
            group = _Group(self, chosen, draws)
            yield from (ExportedFeature(group, index) for index in group.neuron_indices)

    def list_texts(self, neuron_indices: Sequence[int], *, draws: bool = False) -> "Iterator[ListTexts]":
        """The examples of features, or their ``draws``, as the database holds them, for whoever wants columns: of some
        features at a time, ascending; those without any are left out."""
        select = exported.draw_texts_select if draws else exported.example_texts_select
        found, size = ListTexts([], []), 0
        for chosen in self._groups(neuron_indices):
            for neuron_index, text in self.connection.execute(select(self.extraction.id, chosen)):
                found.neuron_indices.append(neuron_index)
                found.texts.append(text)
                size += len(text)
                if size > _CHARACTERS_AT_ONCE:
                    yield found
                    found, size = ListTexts([], []), 0
        if found.texts:
            yield found

    def _groups(self, neuron_indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Features that are read together."""
        most = max(1, self.extraction.top_k_examples * self.extraction.max_length)
        size = max(1, min(FEATURES_AT_ONCE, _FIRINGS_AT_ONCE // most))
        for first in range(0, len(neuron_indices), size):
            yield neuron_indices[first : first + size]


class ExportedFeature:
    """One feature: what is read of it is read for its whole group, when it is first asked for."""

    def __init__(self, group: "_Group", neuron_index: int) -> None:
        self._group, self.neuron_index = group, neuron_index

    @property
    def statistics(self) -> sa.Row[Any]:
        """Its row of ``features``."""
        return self._group.statistics[self.neuron_index]

    @property
    def label(self) -> Label | None:
        return self._group.labels.get(self.neuron_index)

    @property
    def flags(self) -> dict[str, Any]:
        """Flag -> its details."""
        return self._group.flags.get(self.neuron_index, {})

    def top_tokens(self, place: str) -> list[TopToken]:
        """The tokens that it fires on (``firing``) or that come next (``next``), the most frequent first."""
        return self._group.top_tokens.get((self.neuron_index, place), [])

    @property
    def neighbours(self) -> Neighbours | None:
        """The features that fire together with it."""
        return self._group.neighbours.get(self.neuron_index)

    @property
    def logits(self) -> Logits | None:
        """The logit lens; None where it is not defined, or was not computed."""
        row = self._group.directions.get(self.neuron_index)
        if row is None or row.top is None:
            return None
        top, bottom = ([TokenLogit(*one) for one in tokens] for tokens in (row.top, row.bottom))
        return Logits(top, bottom, row.mean, row.std, row.minimum, row.maximum, row.histogram)

    @property
    def nearest(self) -> list[NearestRow]:
        """The nearest decoder rows: of this SAE, then of the others."""
        row = self._group.directions.get(self.neuron_index)
        return [] if row is None else [NearestRow(*one) for one in row.neighbours or ()]

    @property
    def examples(self) -> list[ExportedExample]:
        """Strongest first."""
        return self._group.examples.get(self.neuron_index, [])

    @property
    def draws(self) -> list[ExportedDraw]:
        """By interval."""
        return self._group.draws.get(self.neuron_index, [])

    def sample(self, sample_index: int) -> SampleText:
        """A sample that one of its examples names, or of its draws if those are read. Raises ExportError."""
        found = self._group.samples.get(sample_index)
        if found is None:
            raise ExportError(
                f"sample {sample_index}, which an example of feature {self.neuron_index} of {self._group.title} names, "
                "is not in the results database: merge the extraction again"
            )
        return found


class _Group:
    """Features that are read together."""

    def __init__(self, source: ExportSource, neuron_indices: Sequence[int], draws: bool) -> None:
        self.neuron_indices, self.title = neuron_indices, source.title
        self._source, self._draws, self._id = source, draws, int(source.extraction.id)

    def _rows(self, select: Callable[..., sa.Select[Any]]) -> Sequence[Any]:
        query = select(self._id, self.neuron_indices)
        return self._source.connection.execute(query).all()  # in half the time of one row after the other

    @cached_property
    def statistics(self) -> Mapping[int, sa.Row[Any]]:
        return {row.neuron_index: row for row in self._rows(exported.statistics_select)}

    @cached_property
    def labels(self) -> Mapping[int, Label]:
        extraction = self._source.extraction
        return labels_of(self._source.connection, extraction.name, extraction.sae, self.neuron_indices)

    @cached_property
    def flags(self) -> Mapping[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for index, flag, detail in self._rows(exported.flags_select) if self._source.relations else ():
            found.setdefault(index, {})[flag] = detail
        return found

    @cached_property
    def top_tokens(self) -> Mapping[tuple[int, str], list[TopToken]]:
        found: dict[tuple[int, str], list[TopToken]] = {}
        for row in self._rows(exported.top_tokens_select) if self._source.relations else ():
            found.setdefault(row[:2], []).append(TopToken._make(row[2:]))
        return found

    @cached_property
    def neighbours(self) -> Mapping[int, Neighbours]:
        if self._source.relations is None:
            return {}
        rows = self._rows(exported.neighbours_select)
        return {index: Neighbours(tokens, [Neighbour(*one) for one in listed]) for index, tokens, listed in rows}

    @cached_property
    def directions(self) -> Mapping[int, sa.Row[Any]]:
        made = self._source.directions
        if made is None:
            return {}
        rows = self._source.connection.execute(exported.logits_select(made.id, self.neuron_indices))
        return {row.neuron_index: row for row in rows}

    @cached_property
    def examples(self) -> Mapping[int, list[ExportedExample]]:
        rows = self._rows(exported.example_texts_select)
        return {index: [ExportedExample(*one) for one in json.loads(text)] for index, text in rows}

    @cached_property
    def draws(self) -> Mapping[int, list[ExportedDraw]]:
        rows = self._rows(exported.draw_texts_select)
        return {index: [ExportedDraw(*one) for one in json.loads(text)] for index, text in rows}

    @cached_property
    def samples(self) -> Mapping[int, SampleText]:
        named = {one.sample_index for listed in self.examples.values() for one in listed}
        if self._draws:
            named.update(one.sample_index for listed in self.draws.values() for one in listed)
        return self._source.samples.take(named)


def _known(chosen: Sequence[int], extraction: sa.Row[Any]) -> list[int]:
    """Features without repetition, ascending. Raises ExportError for one that there is not."""
    for index in chosen:
        if not 0 <= index < extraction.latent_dim:
            raise ExportError(f"no feature {index}: features are numbered from 0 to {extraction.latent_dim - 1}")
    if not chosen:
        raise ExportError("no feature is chosen")
    return sorted(set(chosen))
