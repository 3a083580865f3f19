"""The samples that results name, and who speaks in them: shared by all extractions of a corpus."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.prefetch import in_order
from extraction_assets.database.storable import storable
from extraction_assets.database.tables import extractions, sample_feature_lists, sample_messages, samples
from extraction_assets.database.writing.example_lists import constant, displayed
from extraction_assets.engine.corpora.message_spans import SampleMessages

_TOKENS_AT_ONCE = 1_280_000  # of samples whose columns are made at once: some 20 MB

Display = Callable[[list[int]], list[str]]
"""From token ids to one readable text an id."""


class CorpusSamples(NamedTuple):
    """The parts of a merge's corpus that the database stores."""

    token_ids: np.ndarray
    """[N, T]"""
    attention_mask: np.ndarray
    """bool [N, T]"""
    document_ids: Sequence[str]
    document_numbers: np.ndarray
    """[N]"""
    first_tokens: np.ndarray
    """[N]"""
    start_sample: int
    """Absolute ``sample_index`` of row 0."""
    source: str
    tokenizer: str
    packing: str
    content_fingerprint: Callable[[int], str]
    """Hash of the first n rows."""
    messages: SampleMessages | None = None
    """Who speaks where, in a corpus of chats."""
    special_ids: tuple[int, ...] | None = None
    """Ids of the tokenizer's special tokens; None if they are not known."""


def present_samples(connection: sa.Connection, corpus_id: int) -> np.ndarray:
    """Indices of the stored samples of a corpus, ascending."""
    present = connection.scalars(sa.select(samples.c.sample_index).where(samples.c.corpus_id == corpus_id)).all()
    return np.sort(np.asarray(present, dtype=np.int64))


def sample_parts(
    corpus_id: int, corpus: CorpusSamples, new: np.ndarray, display_tokens: Display
) -> dict[sa.Table, Iterable[pa.Table]]:
    """The rows of samples (absolute indices, ascending), made when they are asked for."""
    step = max(1, _TOKENS_AT_ONCE // corpus.token_ids.shape[1])
    parts = [new[first : first + step] for first in range(0, len(new), step)]
    found: dict[sa.Table, Iterable[pa.Table]] = {
        samples: in_order(partial(_sample_rows, corpus_id, corpus, part, display_tokens) for part in parts)
    }
    if corpus.messages is not None:
        said = (_message_columns(corpus_id, corpus.messages, part, corpus.start_sample) for part in parts)
        found[sample_messages] = map(pa.table, said)
    return found


def _sample_rows(corpus_id: int, corpus: CorpusSamples, new: np.ndarray, display_tokens: Display) -> pa.Table:
    rows = new - corpus.start_sample
    mask = corpus.attention_mask[rows]
    lengths, token_ids = mask.sum(axis=1), corpus.token_ids[rows][mask]
    documents, document = np.unique(corpus.document_numbers[rows], return_inverse=True)
    document_ids = pa.array([storable(corpus.document_ids[number]) for number in documents], pa.string())
    return pa.table(
        {
            "corpus_id": constant(corpus_id, len(new)),
            "sample_index": pa.array(new),
            "document_id": document_ids.take(pa.array(document)),
            "first_token": pa.array(corpus.first_tokens[rows]),
            "token_ids": lists(lengths, pa.array(token_ids)),
            "tokens": lists(lengths, displayed([token_ids], display_tokens)),
        }
    )


def _message_columns(corpus_id: int, messages: SampleMessages, new: np.ndarray, start_sample: int) -> dict[str, Any]:
    """One row for each message of samples (absolute indices, ascending), numbered from 0 in its sample."""
    rows, counts = messages.rows_of(new - start_sample)
    role, start, stop = messages.spans[rows].T
    roles = pa.array([storable(one) for one in messages.roles], pa.string())
    return {
        "corpus_id": constant(corpus_id, len(rows)),
        "sample_index": pa.array(np.repeat(new, counts)),
        "number": pa.array(np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)),
        "role": roles.take(pa.array(role)),
        "start": pa.array(start),
        "stop": pa.array(stop),
    }


def delete_samples(connection: sa.Connection, corpus_id: int, extraction_id: int, unnamed: np.ndarray) -> None:
    """Delete samples that the extraction no longer names, except those that another one names."""
    sharing = sa.select(extractions.c.id).where(extractions.c.corpus_id == corpus_id, extractions.c.id != extraction_id)
    if len(unnamed) and (others := connection.scalars(sharing).all()):
        fa = sample_feature_lists.c
        named = connection.scalars(sa.select(fa.sample_index).where(fa.extraction_id.in_(others)).distinct()).all()
        unnamed = np.setdiff1d(unnamed, np.asarray(named, dtype=np.int64))
    backend = backend_of(connection)
    for first in range(0, len(unnamed), backend.most_values):
        part = unnamed[first : first + backend.most_values].tolist()
        for table in (samples, sample_messages):
            doomed = (table.c.corpus_id == corpus_id) & table.c.sample_index.in_(part)
            backend.delete(connection, table, doomed)


def lists(lengths: np.ndarray, values: pa.Array) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)
