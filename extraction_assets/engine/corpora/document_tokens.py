"""Documents -> tokens."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from extraction_assets.engine.corpora.documents import CorpusError, Document, batched

_BATCH_DOCUMENTS = 64

SeparatorToken = Literal["auto", "bos", "eos", "sep", "none"]


class TokenizedDocument(NamedTuple):
    """A document's tokens, without any that the tokenizer would add, and without BOS at its start."""

    document_id: str
    token_ids: np.ndarray
    """int64 [t]"""


def tokenized(
    documents: Iterable[Document],
    tokenizer: Any | None,
    vocabulary_size: int | None = None,
    drop_leading: int | None = None,
) -> Iterator[TokenizedDocument]:
    """Tokens of each document, 64 at a time; documents that are tokens already are only checked.

    Tokens ``drop_leading`` at the start of a document, text or tokens, are left out: its own BOS, because the
    samples get theirs later, or none.
    A fast tokenizer tokenizes in its own pool of threads, a slow one (pure Python) in this thread.
    Raises CorpusError for a text without a tokenizer, and for a token outside the model's ``vocabulary_size``.
    """
    for batch in batched(documents, _BATCH_DOCUMENTS):
        texts = [text for _, text in batch if isinstance(text, str)]
        ids = iter(_token_ids(texts, tokenizer))
        for name, text in batch:
            token_ids = next(ids) if isinstance(text, str) else text
            _check_vocabulary(name, token_ids, vocabulary_size)
            yield TokenizedDocument(name, _without_leading(token_ids, drop_leading))


def _token_ids(texts: list[str], tokenizer: Any | None) -> list[np.ndarray]:
    if not texts:
        return []
    if tokenizer is None:
        raise CorpusError("the corpus is text, but the model has no tokenizer: give token_column, or its tokenizer")
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False, return_attention_mask=False)
    return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]


def _without_leading(ids: np.ndarray, token: int | None) -> np.ndarray:
    if token is None or not len(ids) or ids[0] != token:
        return ids
    others = np.flatnonzero(ids != token)
    return ids[others[0] :] if len(others) else ids[:0]


def _check_vocabulary(name: str, ids: np.ndarray, vocabulary_size: int | None) -> None:
    if not len(ids):
        return
    least, most = int(ids.min()), int(ids.max())
    if least < 0 or (vocabulary_size is not None and most >= vocabulary_size):
        known = "" if vocabulary_size is None else f": the model's vocabulary is 0 to {vocabulary_size - 1}"
        raise CorpusError(
            f"document {name!r} holds token {least if least < 0 else most}{known}; its tokens are of another tokenizer"
        )


def bos_token(tokenizer: Any | None, prepend_bos: bool | None, vocabulary_size: int | None = None) -> int | None:
    """The id of the BOS token that samples begin with; None for none. Raises CorpusError as ``separator_token``."""
    bos = None if tokenizer is None else tokenizer.bos_token_id
    if prepend_bos and bos is None:
        raise CorpusError("prepend_bos is set, but the tokenizer has no BOS token")
    return None if prepend_bos is False else _known("BOS", bos, vocabulary_size)


def separator_token(tokenizer: Any | None, choice: SeparatorToken, vocabulary_size: int | None = None) -> int | None:
    """The id of the token between joined documents; None for none. Raises CorpusError if the tokenizer has none, or
    one that the model with its ``vocabulary_size`` embeddings does not know."""
    if choice == "none":
        return None
    for name in ("bos", "eos") if choice == "auto" else (choice,):
        found: int | None = None if tokenizer is None else getattr(tokenizer, f"{name}_token_id")
        if found is not None:
            return _known(name.upper(), found, vocabulary_size)
    wanted = "BOS or EOS" if choice == "auto" else choice.upper()
    raise CorpusError(
        f"sequence_separator_token is {choice!r}, but the tokenizer has no {wanted} token: choose another, or none"
    )


def _known(role: str, token: int | None, vocabulary_size: int | None) -> int | None:
    if token is not None and vocabulary_size is not None and token >= vocabulary_size:
        raise CorpusError(
            f"the tokenizer's {role} token has id {token}, but the model's vocabulary is 0 to {vocabulary_size - 1}: "
            "tokenizer and model do not belong together, or the tokenizer's files name a token that they do not hold"
        )
    return token


def special_token_ids(tokenizer: Any | None) -> list[int]:
    """Ids of the tokens that the tokenizer's files mark as special, and of those with a role (BOS and the like)."""
    if tokenizer is None:
        return []
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(marked | {number for number in tokenizer.all_special_ids if number is not None})
