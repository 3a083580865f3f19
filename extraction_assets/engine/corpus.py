"""Documents -> samples, attention mask, special tokens mask and document ids."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from extraction_assets.engine.corpora.documents import CorpusError, Document
from extraction_assets.engine.corpora.packing import PackedSample, distinct_samples, pack_concatenated, pack_documents
from extraction_assets.engine.corpora.tokenizing import SeparatorToken, bos_token, separator_token, tokenized
from extraction_assets.engine.models.tokenizers import special_token_ids


class TokenizedCorpus(NamedTuple):
    """Samples of a corpus, padded on the right to T positions."""

    token_ids: np.ndarray
    """int32 [N, T]; 0 at padding."""
    attention_mask: np.ndarray
    """bool [N, T]: False at padding, whatever the tokenizer's pad id is."""
    special_tokens_mask: np.ndarray
    """bool [N, T]: True at special tokens (BOS and the like)."""
    document_numbers: np.ndarray
    """int64 [N]: index into ``document_ids``, of the document that the sample's first token of text is of."""
    first_tokens: np.ndarray
    """int64 [N]: index of the sample's first token of text inside its document's tokens, BOS at its start left out."""
    document_ids: list[str]


class Packing(NamedTuple):
    """How tokens become samples; the fields are those of the corpus settings."""

    max_length: int
    packing: Literal["documents", "concatenated"] = "documents"
    prepend_bos: bool | None = None
    sequence_separator_token: SeparatorToken = "auto"
    drop_duplicates: bool = False
    keep_leading_bos: bool = False
    """Leave a BOS at the start of a document where it is: nothing is said about BOS, and the documents are tokens."""


def tokenize_corpus(
    documents: Iterable[Document],
    tokenizer: Any | None,
    packing: Packing,
    num_samples: int,
    *,
    start_sample: int = 0,
    vocabulary_size: int | None = None,
    on_samples: Callable[[int], None] = lambda _: None,
) -> TokenizedCorpus:
    """Samples ``start_sample`` to ``start_sample + num_samples`` of the documents.

    ``tokenizer`` may be None where documents are tokens already; then no token is special.
    ``on_samples`` is called with the number of new samples as they come. Reads no more documents than needed, and holds
    64 of them beside the samples (6 bytes a position) and the ids of all documents read.
    Raises CorpusError that names both numbers where there are fewer samples than asked for.
    """
    document_ids: list[str] = []
    samples = _samples(documents, tokenizer, packing, vocabulary_size, document_ids)
    token_ids = np.zeros((num_samples, packing.max_length), dtype=np.int32)
    lengths = np.zeros(num_samples, dtype=np.int64)
    origins = np.zeros((2, num_samples), dtype=np.int64)
    seen, wanted = 0, start_sample + num_samples
    for sample in samples:
        row = seen - start_sample
        seen += 1
        if row >= 0:
            lengths[row] = len(sample.token_ids)
            token_ids[row, : lengths[row]] = sample.token_ids
            origins[:, row] = sample.document, sample.first_token
            on_samples(1)
        if seen == wanted:
            break
    if seen < wanted:
        distinct = "distinct " if packing.drop_duplicates else ""
        raise CorpusError(
            f"the corpus holds {seen} {distinct}samples of {packing.max_length} positions, but {wanted} are asked for "
            f"(start_sample {start_sample} + evaluation_samples {num_samples}): lower evaluation_samples or add text"
        )
    attention_mask = np.arange(packing.max_length) < lengths[:, None]  # [N, T]
    special = np.isin(token_ids, special_token_ids(tokenizer)) & attention_mask
    return TokenizedCorpus(token_ids, attention_mask, special, origins[0], origins[1], document_ids)


def _samples(
    documents: Iterable[Document],
    tokenizer: Any | None,
    packing: Packing,
    vocabulary_size: int | None,
    document_ids: list[str],
) -> Iterator[PackedSample]:
    """The samples of all documents; notes the ids of those that were read.

    One rule for all: BOS at the start of a document is left out, then ``prepend_bos`` says whether samples get one.
    """
    bos = bos_token(tokenizer, packing.prepend_bos, vocabulary_size)
    own_bos = None if tokenizer is None or packing.keep_leading_bos else tokenizer.bos_token_id

    def token_ids() -> Iterator[np.ndarray]:
        for document in tokenized(documents, tokenizer, vocabulary_size, own_bos):
            document_ids.append(document.document_id)
            yield document.token_ids

    if packing.packing == "documents":
        samples = pack_documents(token_ids(), packing.max_length, bos)
    else:
        separator = separator_token(tokenizer, packing.sequence_separator_token, vocabulary_size)
        samples = pack_concatenated(token_ids(), packing.max_length, bos, separator)
    return distinct_samples(samples) if packing.drop_duplicates else samples
