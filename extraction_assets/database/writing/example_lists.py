"""Examples and draws as rows of JSON lists: made by Arrow and NumPy in bulk, some features at a time."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from extraction_assets.database.backends.arrow_lists import json_lists
from extraction_assets.database.backends.prefetch import in_order
from extraction_assets.database.storable import storable
from extraction_assets.database.tables import LOOKED_AT, SPACE
from extraction_assets.engine.corpora.message_spans import SampleMessages
from extraction_assets.engine.ordering import ascending_bits, bits_for, order_by
from extraction_assets.engine.selection.merge import ranks_of_rows
from extraction_assets.engine.shapes import TopKTable

_FIRINGS_AT_ONCE = 500_000  # some 10 MB of text, made of some 30 MB
_SORTED_AT_ONCE = 1 << 24
_SPANS = 1 << 14
_PAIRS_AT_ONCE = 300_000  # of a feature and a sample or a token: some 6 MB of text


class Listed(NamedTuple):
    """Examples (or draws) of features, and what the database says of each beside its numbers."""

    neuron_index: np.ndarray
    """int64 [E], ascending."""
    leading: tuple[np.ndarray, ...]
    """int64 [E] each: what stands before the maximum."""
    max_activation: np.ndarray
    """float32 [E]"""
    max_tokens: pa.DictionaryArray
    """[E]: display string of the token at the strongest position."""
    firing_offsets: np.ndarray
    """int64 [E + 1]"""
    positions: np.ndarray
    """int64 [M]"""
    activations: np.ndarray
    """float32 [M]"""


def feature_lists(extraction_id: int, listed: Listed, column: str) -> Iterator[pa.Table]:
    """One row for each feature that has examples, in parts of bounded size."""
    tokens = json_texts(listed.max_tokens.dictionary)
    features = int(listed.neuron_index[-1]) + 1 if len(listed.neuron_index) else 0
    starts = np.searchsorted(listed.neuron_index, np.arange(features + 1))
    neurons = np.flatnonzero(np.diff(starts))
    starts = np.append(starts[neurons], len(listed.neuron_index))

    def part(first: int, stop: int) -> pa.Table:
        texts = _example_texts(listed, tokens, int(starts[first]), int(starts[stop]))
        return _rows(extraction_id, {"neuron_index": neurons}, starts, first, stop, {column: texts})

    yield from _made(part, _parts(listed.firing_offsets[starts], _FIRINGS_AT_ONCE))


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""sample_index, neuron_index and max_activation of examples: int64, int64 and float32 [E], in any order."""


def sample_lists(extraction_id: int, features: int, pairs: Sequence[Pairs]) -> Iterator[pa.Table]:
    """One row for each sample: the features that have it, strongest first; each once, however often it is given.

    ``features`` is how many there are in all. Sorts the pairs of some samples after those of others, about
    ``_SORTED_AT_ONCE`` at a time, with 100 bytes for each.
    """
    for part in _by_samples([one for one in pairs if len(one[0])]):
        yield from _sample_lists(extraction_id, features, *part)


def _by_samples(pairs: Sequence[Pairs]) -> Iterator[Pairs]:
    """The pairs of consecutive ranges of samples."""
    total = sum(len(one[0]) for one in pairs)
    if total <= _SORTED_AT_ONCE:
        yield from [_joined_pairs(pairs)] if pairs else ()
        return
    first, stop = min(int(one[0].min()) for one in pairs), max(int(one[0].max()) for one in pairs) + 1
    span = -(-(stop - first) // _SPANS)  # samples that are counted together
    counts = np.zeros(_SPANS, dtype=np.int64)
    for samples, _, _ in pairs:
        for rows in some_at_once(len(samples)):
            counts += np.bincount((samples[rows] - first) // span, minlength=_SPANS)
    edges = first + span * np.array([edge for edge, _ in _parts(np.append(0, counts.cumsum()), _SORTED_AT_ONCE)])
    for begin, end in pairwise([*edges.tolist(), stop]):
        found = []
        for one in pairs:
            for rows in some_at_once(len(one[0])):
                samples = one[0][rows]
                chosen = np.flatnonzero((begin <= samples) & (samples < end))
                found.append((samples[chosen], one[1][rows][chosen], one[2][rows][chosen]))
        yield _joined_pairs(found)


def _joined_pairs(pairs: Sequence[Pairs]) -> Pairs:
    samples, neurons, maxima = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return samples, neurons, maxima


def _sample_lists(
    extraction_id: int, features: int, sample_index: np.ndarray, neuron_index: np.ndarray, max_activation: np.ndarray
) -> Iterator[pa.Table]:
    samples, neurons, maxima = map(torch.from_numpy, (sample_index, neuron_index, max_activation))
    first = int(sample_index.min(initial=0))
    span = int(sample_index.max(initial=0)) - first + 1
    falling = 0x7FFFFFFF - ascending_bits(maxima)
    order = order_by((samples - first, bits_for(span)), (falling, 31), (neurons, bits_for(features))).numpy()
    sample_index, neuron_index, max_activation = sample_index[order], neuron_index[order], max_activation[order]
    kept = np.ones(len(order), dtype=bool)
    kept[1:] = (np.diff(sample_index) != 0) | (np.diff(neuron_index) != 0)
    sample_index, neuron_index, max_activation = sample_index[kept], neuron_index[kept], max_activation[kept]
    named, starts = np.unique(sample_index, return_index=True)
    starts = np.append(starts, len(sample_index))

    def part(first: int, stop: int) -> pa.Table:
        rows = slice(int(starts[first]), int(starts[stop]))
        texts = json_rows(_numbers(neuron_index[rows]), _numbers(max_activation[rows]))
        return _rows(extraction_id, {"sample_index": named}, starts, first, stop, {"features": texts})

    yield from _made(part, _parts(starts, _PAIRS_AT_ONCE))


def token_lists(
    extraction_id: int,
    table: TopKTable,
    max_tokens: pa.DictionaryArray,
    max_activation: np.ndarray,
    frequency: np.ndarray,
) -> Iterator[pa.Table]:
    """One row for each token that is the strongest of one of a feature's ``LOOKED_AT`` strongest examples.

    ``max_activation`` float32 [F] and ``frequency`` float64 [F] are the features' own: a token's features come in the
    order in which they are good to read, those that fire in more than a fifth of the samples last.
    """
    features = len(max_activation)
    looked_at = _looked_at(table)
    # Ids of different tokens may have one display string.
    texts = max_tokens.dictionary.dictionary_encode()
    token = texts.indices.to_numpy()[max_tokens.indices.to_numpy()[looked_at]].astype(np.int64)
    pairs = token * features + table.neuron_index.numpy()[looked_at]
    order = np.argsort(pairs, kind="stable")
    pairs, starts, counts = np.unique(pairs[order], return_index=True, return_counts=True)
    strongest = np.maximum.reduceat(table.max_activation.numpy()[looked_at][order], starts) if len(starts) else order
    token, neuron = np.divmod(pairs, features)
    order = np.lexsort((neuron, -max_activation[neuron], -counts, frequency[neuron] > 0.2, token))
    columns = [column[order] for column in (neuron, counts, strongest)]
    tokens, starts = np.unique(token, return_index=True)
    starts = np.append(starts, len(token))
    named = texts.dictionary.take(pa.array(tokens))
    keys = {"token": named, "word": pc.utf8_trim(named, SPACE)}

    def part(first: int, stop: int) -> pa.Table:
        rows = slice(int(starts[first]), int(starts[stop]))
        elements = json_rows(*(_numbers(column[rows]) for column in columns))
        return _rows(extraction_id, keys, starts, first, stop, {"features": elements})

    yield from _made(part, _parts(starts, _PAIRS_AT_ONCE))


def role_rows(
    extraction_id: int, table: TopKTable, features: int, messages: SampleMessages, first_sample: int
) -> pa.Table:
    """One row for each feature and role: how many of its ``LOOKED_AT`` strongest examples have their strongest token in
    a message of the role. ``first_sample`` is the index of the first sample that ``messages`` knows."""
    looked_at = np.flatnonzero(_looked_at(table))
    position = table.positions.numpy()[table.firing_offsets.numpy()[looked_at]]
    rows, counts = messages.rows_of(table.sample_index.numpy()[looked_at] - first_sample)
    role, start, stop = messages.spans[rows].T
    example = np.repeat(np.arange(len(looked_at)), counts)
    said = (start <= position[example]) & (position[example] < stop)
    neuron = table.neuron_index.numpy()[looked_at][example[said]]
    pairs, counts = np.unique(role[said].astype(np.int64) * features + neuron, return_counts=True)
    roles = pa.array([storable(one) for one in messages.roles], pa.string())
    return pa.table(
        {
            "extraction_id": constant(extraction_id, len(pairs)),
            "role": roles.take(pa.array(pairs // features)),
            "neuron_index": pa.array(pairs % features),
            "examples": pa.array(counts),
        }
    )


def _looked_at(table: TopKTable) -> np.ndarray:
    """bool [E]: the ``LOOKED_AT`` strongest examples of each feature."""
    neurons = table.neuron_index.numpy()
    parts = [ranks_of_rows(neurons, rows) < LOOKED_AT for rows in some_at_once(len(neurons))]
    return np.concatenate([np.zeros(0, bool), *parts])


def displayed(token_ids: Iterable[np.ndarray], display_tokens: Callable[[list[int]], list[str]]) -> pa.DictionaryArray:
    """The text of each token id, which come in pieces [Z]; every different one is computed once."""
    ids = np.concatenate([np.zeros(0, np.int32), *(piece.astype(np.int32) for piece in token_ids)])
    there = np.zeros(int(ids.max(initial=-1)) + 1, dtype=bool)
    for rows in some_at_once(len(ids)):
        there[ids[rows]] = True
    texts = pa.array(display_tokens(np.flatnonzero(there).tolist()), pa.string())
    numbers = np.cumsum(there, dtype=np.int32) - 1
    for rows in some_at_once(len(ids)):
        ids[rows] = numbers[ids[rows]]
    return pa.DictionaryArray.from_arrays(pa.array(ids), texts)


def some_at_once(count: int, size: int = 1 << 22) -> Iterator[slice]:
    """Slices that make up ``count`` rows: what is worked out of millions of examples is there for some of them."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def constant(value: int, count: int) -> pa.Array:
    """A column of one number."""
    return pa.array(np.full(count, value))


def json_texts(texts: pa.Array) -> pa.Array:
    """Texts as JSON strings."""
    return pa.array([json.dumps(text, ensure_ascii=False) for text in texts.to_pylist()], pa.string())


def json_rows(*columns: pa.Array) -> pa.Array:
    """One JSON list for each row, of the JSON values of its columns."""
    between = [part for column in columns for part in (",", column)][1:]
    return pc.binary_join_element_wise("[", *between, "]", "")


def _rows(
    extraction_id: int,
    keys: dict[str, Any],
    starts: np.ndarray,
    first: int,
    stop: int,
    lists: dict[str, pa.Array],
) -> pa.Table:
    """Rows ``first:stop``: their keys, and lists of which row r holds elements ``starts[r]:starts[r + 1]``; ``lists``
    has the elements of these rows alone."""
    offsets = starts[first : stop + 1] - starts[first]
    named = {name: pa.array(values[first:stop]) for name, values in keys.items()}
    made = {name: _joined(offsets, elements) for name, elements in lists.items()}
    return pa.table({"extraction_id": constant(extraction_id, stop - first), **named, **made})


def _made(part: Callable[[int, int], pa.Table], ranges: Iterable[tuple[int, int]]) -> Iterator[pa.Table]:
    return in_order(partial(part, first, stop) for first, stop in ranges)


def _example_texts(listed: Listed, tokens: pa.Array, first: int, stop: int) -> pa.Array:
    offsets = listed.firing_offsets[first : stop + 1]
    firings = slice(int(offsets[0]), int(offsets[-1]))
    chosen = tokens.take(listed.max_tokens.indices[first:stop])
    return json_rows(
        *(_numbers(column[first:stop]) for column in listed.leading),
        _numbers(listed.max_activation[first:stop]),
        chosen,
        _joined(offsets - offsets[0], _numbers(listed.positions[firings])),
        _joined(offsets - offsets[0], _numbers(listed.activations[firings])),
    )


def _numbers(values: np.ndarray) -> pa.Array:
    """Numbers as text; of a float32 the fewest digits that are no other float32."""
    return pa.array(values).cast(pa.string())


def _joined(offsets: np.ndarray, texts: pa.Array) -> pa.Array:
    """JSON lists of JSON values: list r holds values ``offsets[r]:offsets[r + 1]``."""
    return json_lists(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts))


def _parts(ends: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold about ``size`` elements each; row r holds ``ends[r]`` to ``ends[r + 1]``, at least one
    row a range."""
    first = 0
    while first < len(ends) - 1:
        stop = int(np.searchsorted(ends, ends[first] + size, "right")) - 1
        stop = min(max(stop, first + 1), len(ends) - 1)
        yield first, stop
        first = stop
