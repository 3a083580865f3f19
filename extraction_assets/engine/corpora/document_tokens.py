"""Documents -> tokens."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from extraction_assets.engine.corpora.chat_template import ChatTemplate
from extraction_assets.engine.corpora.documents import Conversation, CorpusError, Document, batched
from extraction_assets.engine.corpora.message_spans import MessageSpan, token_spans

_BATCH_DOCUMENTS = 64

SeparatorToken = Literal["auto", "bos", "eos", "sep", "none"]


class TokenizedDocument(NamedTuple):
    """A document's tokens, without any that the tokenizer would add."""

    document_id: str
    token_ids: np.ndarray
    """int64 [t]"""
    messages: tuple[MessageSpan, ...] | None = None
    """Where the messages of a chat stand in ``token_ids``."""


def tokenized(
    documents: Iterable[Document],
    tokenizer: Any | None,
    vocabulary_size: int | None = None,
    drop_leading: int | None = None,
) -> Iterator[TokenizedDocument]:
    """Tokens of each document, up to 64 at a time; documents that are tokens already are only checked.

    Tokens ``drop_leading`` at the start of a document, text or tokens, are left out: its own BOS, because the
    samples get theirs later, or none. A chat keeps one BOS if its template writes any.
    A fast tokenizer tokenizes in its own pool of threads, a slow one (pure Python) in this thread.
    Raises CorpusError for a text without a tokenizer, for a token outside the model's ``vocabulary_size``, and what
    ``ChatTemplate`` raises.
    """
    chats = _Chats(tokenizer)
    for batch in batched(documents, _BATCH_DOCUMENTS):
        texts = [text for _, text in batch if isinstance(text, str)]
        ids = iter(_token_ids(texts, tokenizer))
        conversations = iter(chats.tokenized([text for _, text in batch if isinstance(text, Conversation)]))
        for name, text in batch:
            messages = None
            if isinstance(text, Conversation):
                token_ids, messages = next(conversations)
            else:
                token_ids = _without_leading(next(ids) if isinstance(text, str) else text, drop_leading)
            _check_vocabulary(name, token_ids, vocabulary_size)
            yield TokenizedDocument(name, token_ids, messages)


class _Chats:
    """Conversations through a tokenizer's chat template."""

    def __init__(self, tokenizer: Any | None) -> None:
        self._tokenizer = tokenizer
        self._template: ChatTemplate | None = None

    def tokenized(self, conversations: list[Conversation]) -> Iterator[tuple[np.ndarray, tuple[MessageSpan, ...]]]:
        """The tokens of each conversation, with one BOS where its text begins with any, and where its messages are."""
        if not conversations:
            return
        tokenizer = self._tokenizer
        if tokenizer is None or not tokenizer.is_fast:
            kind = "the model has none" if tokenizer is None else f"{type(tokenizer).__name__} does not"
            raise CorpusError(
                f"corpus.messages_column needs a tokenizer that says which characters a token stands for, but {kind}: "
                "put a tokenizer.json into the model's folder"
            )
        self._template = self._template or ChatTemplate(tokenizer)
        chats = [self._template.render(conversation) for conversation in conversations]
        encoded = tokenizer(
            [chat.text for chat in chats],
            add_special_tokens=False,
            verbose=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
        )
        for chat, ids, offsets in zip(chats, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            token_ids = np.asarray(ids, dtype=np.int64)
            left = max(0, _leading(token_ids, tokenizer.bos_token_id) - 1)
            pairs = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)[left:]
            yield token_ids[left:], tuple(token_spans(chat.messages, pairs))


def _token_ids(texts: list[str], tokenizer: Any | None) -> list[np.ndarray]:
    if not texts:
        return []
    if tokenizer is None:
        raise CorpusError("the corpus is text, but the model has no tokenizer: give token_column, or its tokenizer")
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False, return_attention_mask=False)
    return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]


def _without_leading(ids: np.ndarray, token: int | None) -> np.ndarray:
    return ids[_leading(ids, token) :]


def _leading(ids: np.ndarray, token: int | None) -> int:
    """How many times a token stands at the start."""
    if token is None or not len(ids) or ids[0] != token:
        return 0
    others = np.flatnonzero(ids != token)
    return int(others[0]) if len(others) else len(ids)


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
