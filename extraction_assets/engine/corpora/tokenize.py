"""Documents -> samples, attention mask, special tokens mask and document ids."""

import contextlib
import itertools
import math
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from extraction_assets.engine.corpora.document_tokens import (
    SeparatorToken,
    bos_token,
    separator_token,
    special_token_ids,
    tokenized,
)
from extraction_assets.engine.corpora.documents import CorpusError, Document
from extraction_assets.engine.corpora.message_spans import (
    MessageSpan,
    SampleMessages,
    SampleMessagesBuilder,
    shifted,
)
from extraction_assets.engine.corpora.packing import PackedSample, distinct_samples, pack_concatenated, pack_documents
from extraction_assets.settings import CorpusSettings

_BLOCK_SAMPLES = 1 << 12


class SampleBlock(NamedTuple):
    """B samples in a row of a corpus, padded on the right to T positions."""

    token_ids: np.ndarray
    """int32 [B, T]; 0 at padding."""
    attention_mask: np.ndarray
    """bool [B, T]: False at padding, whatever the tokenizer's pad id is."""
    special_tokens_mask: np.ndarray
    """bool [B, T]: True at special tokens (BOS and the like)."""
    document_numbers: np.ndarray
    """int64 [B]: index into ``document_ids``, of the document that the sample's first token of text is of."""
    first_tokens: np.ndarray
    """int64 [B]: index of the sample's first token of text inside its document's tokens, BOS at its start left out
    unless the document is tokens already or a chat."""
    document_ids: Sequence[str]
    """Of the documents that were read for these samples; ``document_numbers`` count those of all blocks."""


class TokenizedCorpus(NamedTuple):
    """All N samples of a corpus; its fields are those of one ``SampleBlock``."""

    token_ids: np.ndarray
    attention_mask: np.ndarray
    special_tokens_mask: np.ndarray
    document_numbers: np.ndarray
    first_tokens: np.ndarray
    document_ids: Sequence[str]
    messages: SampleMessages | None = None
    """The messages of each sample, if the documents are chats."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, T)."""
        samples, length = self.token_ids.shape
        return samples, length

    def blocks(self) -> Iterator[SampleBlock]:
        """One block of all samples."""
        yield SampleBlock(*(getattr(self, name) for name in SampleBlock._fields))


class Packing(NamedTuple):
    """How tokens become samples; the fields are those of the corpus settings."""

    max_length: int
    packing: Literal["documents", "concatenated"] = "documents"
    prepend_bos: bool | None = None
    sequence_separator_token: SeparatorToken = "auto"
    drop_duplicates: bool = False
    keep_leading_bos: bool = False
    """Leave a BOS at the start of a document where it is: nothing is said about BOS, and the documents are tokens."""


class SampleStream:
    """Samples ``start_sample`` to ``start_sample + num_samples`` of documents, block by block.

    ``tokenizer`` may be None if documents are tokens already; then no token is special.
    ``on_samples`` is called with the number of new samples as they come, ``at_end`` once all have been taken: an error
    that it raises is one of ``blocks``. Reads no more documents than needed, and holds up to 64 of them, a block of
    samples, and of chats 12 bytes a message and 8 a sample.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        tokenizer: Any | None,
        packing: Packing,
        num_samples: int,
        *,
        start_sample: int = 0,
        vocabulary_size: int | None = None,
        on_samples: Callable[[int], None] = lambda _: None,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.shape = num_samples, packing.max_length
        """(N, T) of all blocks together."""
        self._messages: SampleMessagesBuilder | None = None
        self._packing, self._start_sample = packing, start_sample
        self._read = _DocumentsRead()
        self._samples = _samples(documents, tokenizer, packing, vocabulary_size, self._read)
        self._special_ids = cache(
            lambda: special_token_ids(tokenizer)
        )  # not before the tokenizer is known to be usable
        self._on_samples, self._at_end = on_samples, at_end

    @property
    def messages(self) -> SampleMessages | None:
        """Of the samples taken so far, if the documents are chats."""
        return None if self._messages is None else self._messages.build()

    def blocks(self) -> Iterator[SampleBlock]:
        """All samples, once; blocks before ``start_sample`` have documents alone, whose ids would else all be held.

        Raises CorpusError, which names both numbers, if there are fewer samples than requested.
        """
        samples, seen, stop = self._counted(), 0, self._start_sample + self.shape[0]
        while seen < stop:
            block = list(itertools.islice(samples, min(_BLOCK_SAMPLES, stop - seen)))
            if not block:
                raise CorpusError(too_few_samples(seen, self._packing, self._start_sample, self.shape[0]))
            yield self._block(block[max(0, self._start_sample - seen) :])
            seen += len(block)
        self._at_end()

    def _counted(self) -> Iterator[PackedSample]:
        for number, sample in enumerate(self._samples):
            if number >= self._start_sample:
                self._on_samples(1)
            yield sample

    def _block(self, samples: Sequence[PackedSample]) -> SampleBlock:
        length = self._packing.max_length
        token_ids = np.zeros((len(samples), length), dtype=np.int32)
        for row, sample in zip(token_ids, samples, strict=True):
            row[: len(sample.token_ids)] = sample.token_ids
            if sample.messages is not None:
                self._messages = self._messages or SampleMessagesBuilder()
                self._messages.add(sample.messages)
        lengths = np.array([len(sample.token_ids) for sample in samples])
        attention_mask = np.arange(length) < lengths[:, None]  # [B, T]
        special = np.isin(token_ids, self._special_ids()) & attention_mask
        numbers = np.array([sample.document for sample in samples], dtype=np.int64)
        first_tokens = np.array([sample.first_token for sample in samples], dtype=np.int64)
        return SampleBlock(token_ids, attention_mask, special, numbers, first_tokens, self._read.take_ids())


def tokenize_corpus(
    documents: Iterable[Document],
    tokenizer: Any | None,
    packing: Packing,
    num_samples: int,
    *,
    start_sample: int = 0,
    vocabulary_size: int | None = None,
) -> TokenizedCorpus:
    """The samples of a ``SampleStream`` in memory: 6 bytes a position and 16 a sample, twice for a moment."""
    stream = SampleStream(
        documents, tokenizer, packing, num_samples, start_sample=start_sample, vocabulary_size=vocabulary_size
    )
    blocks = list(stream.blocks())
    arrays = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in SampleBlock._fields[:-1]}
    document_ids = [name for block in blocks for name in block.document_ids]
    return TokenizedCorpus(**arrays, document_ids=document_ids, messages=stream.messages)


def too_few_samples(found: int, packing: Packing, start_sample: int, num_samples: int) -> str:
    """One sentence: the corpus has ``found`` samples, fewer than ``start_sample + num_samples``, and what to do."""
    distinct = "distinct " if packing.drop_duplicates else ""
    left = found - start_sample
    remedy = f"lower evaluation_samples to {left}" if left > 0 else "lower start_sample"
    return (
        f"the corpus holds {found} {distinct}samples of {packing.max_length} positions, but "
        f"{start_sample + num_samples} are requested (start_sample {start_sample} + evaluation_samples {num_samples}): "
        f"{remedy} or add text"
    )


class SampleCount(NamedTuple):
    """How many samples a corpus has, as far as they were counted."""

    samples: int
    documents: int
    """Those that the samples from ``start_sample`` on come from."""
    documents_read: int
    ended: bool
    """Whether the source has no more."""
    documents_cut: int = 0
    """Those that lie in several samples, as they are longer than one."""


def count_samples(
    documents: Iterable[Document],
    tokenizer: Any | None,
    packing: Packing,
    most: int,
    *,
    start_sample: int = 0,
    vocabulary_size: int | None = None,
    seconds: float = math.inf,
    on_samples: Callable[[int], None] = lambda _: None,
) -> SampleCount:
    """Counts the samples that a ``SampleStream`` would have, up to ``most`` of them and for about ``seconds``.

    Holds 8 bytes a sample. Time is looked at between documents, of which up to 64 are tokenized at once. Raises
    CorpusError for a token outside the model's ``vocabulary_size``.
    """
    deadline = time.monotonic() + seconds
    documents_read = _DocumentsRead()
    numbers = array("q")
    ended, seen = False, 0
    with contextlib.suppress(_TimeIsUp):
        for sample in _samples(_until(deadline, documents), tokenizer, packing, vocabulary_size, documents_read):
            documents_read.take_ids()  # which would be held
            seen += 1
            if seen > start_sample:
                numbers.append(sample.document)
            on_samples(1)
            if seen == most or time.monotonic() > deadline:
                break
        else:
            ended = True
    read, behind = documents_read.count, np.asarray(numbers, dtype=np.int64)
    documents_found = documents_behind(behind, read, packing.packing)
    return SampleCount(seen, documents_found, read, ended, documents_cut(behind, packing.packing))


def documents_behind(document_numbers: np.ndarray, documents_read: int, packing: str) -> int:
    """Documents that samples come from: ``document_numbers`` int64 [N] of their first tokens, of all that were read."""
    if not len(document_numbers):
        return 0
    if packing == "documents":
        return len(np.unique(document_numbers))
    return documents_read - int(document_numbers[0])  # the first of none, where it lies whole inside a sample


def documents_cut(document_numbers: np.ndarray, packing: str) -> int:
    """Documents of which there are several samples; 0 where samples are cut without regard to documents.

    ``document_numbers`` int64 [N] are those of the samples' first tokens.
    """
    if packing != "documents":
        return 0
    return int((np.unique(document_numbers, return_counts=True)[1] > 1).sum())


class _TimeIsUp(Exception):
    pass


class _DocumentsRead:
    """How many documents were read, and the ids of those that nobody has taken yet."""

    def __init__(self) -> None:
        self.count, self._ids = 0, list[str]()

    def add(self, document_id: str) -> None:
        self.count += 1
        self._ids.append(document_id)

    def take_ids(self) -> list[str]:
        ids, self._ids = self._ids, []
        return ids


def _until(deadline: float, documents: Iterable[Document]) -> Iterator[Document]:
    for document in documents:
        if time.monotonic() > deadline:
            raise _TimeIsUp
        yield document


def _samples(
    documents: Iterable[Document],
    tokenizer: Any | None,
    packing: Packing,
    vocabulary_size: int | None,
    read: _DocumentsRead,
) -> Iterator[PackedSample]:
    """The samples of all documents; notes which of them were read.

    One rule for all: BOS at the start of a document is left out, then ``prepend_bos`` says whether samples get one.
    """
    bos = bos_token(tokenizer, packing.prepend_bos, vocabulary_size)
    dropped = None if tokenizer is None or packing.keep_leading_bos else tokenizer.bos_token_id
    spoken: dict[int, tuple[MessageSpan, ...]] = {}

    def token_ids() -> Iterator[np.ndarray]:
        for document in tokenized(documents, tokenizer, vocabulary_size, dropped):
            if document.messages is not None:
                spoken[read.count] = document.messages
            read.add(document.document_id)
            yield document.token_ids

    if packing.packing == "documents":
        samples = pack_documents(token_ids(), packing.max_length, bos)
    else:
        separator = separator_token(tokenizer, packing.sequence_separator_token, vocabulary_size)
        samples = pack_concatenated(token_ids(), packing.max_length, bos, separator)
    samples = _with_messages(samples, spoken)
    return distinct_samples(samples) if packing.drop_duplicates else samples


def _with_messages(
    samples: Iterable[PackedSample], spoken: dict[int, tuple[MessageSpan, ...]]
) -> Iterator[PackedSample]:
    """The samples with the messages that stand in them; forgets documents of which no later sample is.

    ``spoken`` holds the messages of each document that is a chat, by its number.
    """
    for sample in samples:
        if not spoken:
            yield sample
            continue
        pieces = [piece for piece in sample.pieces if piece.document in spoken]
        found = [span for one in pieces for span in shifted(spoken[one.document], one.first, one.length, one.place)]
        yield sample._replace(messages=tuple(found))
        for number in [number for number in spoken if number < sample.pieces[-1].document]:
            del spoken[number]


def packing_of(corpus: CorpusSettings) -> Packing:
    """How the tokens of a corpus become samples. Documents that are tokens already stay as they are by default."""
    as_they_are = corpus.prepend_bos is None and corpus.token_column is not None
    return Packing(
        corpus.max_length,
        corpus.packing,
        False if as_they_are else corpus.prepend_bos,
        corpus.sequence_separator_token,
        corpus.drop_duplicates,
        keep_leading_bos=as_they_are,
    )
