"""Documents from columns: their text, their tokens or their messages, and their ids, checked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from extraction_assets.engine.corpora import decoding
from extraction_assets.engine.corpora.boundary import one_sentence
from extraction_assets.engine.corpora.documents import CorpusError, Document
from extraction_assets.engine.corpora.messages import CHAT_COLUMNS, conversation
from extraction_assets.engine.corpora.shown_values import SHORT, check_unicode, shown

_SHOWN_COLUMNS = 20


class Columns(NamedTuple):
    """Which columns documents are made of."""

    text: str = "text"
    id: str | None = None
    tokens: str | None = None
    """Read instead of ``text``."""
    attention_mask: str | None = None
    messages: str | None = None
    """Read instead of ``text``."""

    @property
    def names(self) -> list[str]:
        """Columns to read."""
        columns = [self.messages or self.text, self.id]
        if self.tokens is not None:
            columns = [self.tokens, self.id, self.attention_mask]
        return [name for name in columns if name is not None]

    def check(self, present: Sequence[str], where: str) -> None:
        """Raises CorpusError, which names the existing columns, if one is missing."""
        for name in self.names:
            if list(present).count(name) > 1:
                raise CorpusError(f"{where} has {list(present).count(name)} columns {name!r}: which one is meant?")
            if name not in present:
                chats = [one for one in CHAT_COLUMNS if one in present and self.messages is None]
                hint = f": to read chats, set corpus.messages_column to {chats[0]}" if chats else ""
                raise CorpusError(f"{where} has no column {name!r}; it has {_listed(present)}{hint}")


def _listed(columns: Sequence[str]) -> str:
    """The names of columns, not too many and none too long."""
    shown = [SHORT.repr(name) for name in columns[:_SHOWN_COLUMNS]]
    more = len(columns) - _SHOWN_COLUMNS
    return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])]) or "none"


def row_document(row: Mapping[str, Any], columns: Columns, default_id: str, where: str) -> Document:
    """The document of one row; ``where`` names the row in errors."""
    name = _document_id(row[columns.id], columns.id, where) if columns.id else default_id
    where = f"{where} (document {SHORT.repr(name)})"
    if columns.messages is not None:
        return name, conversation(row[columns.messages], columns.messages, where)
    if columns.tokens is None:
        return name, _text(row[columns.text], columns.text, where)
    ids = _integers(row[columns.tokens], columns.tokens, where)
    if columns.attention_mask is None:
        return name, ids
    mask = _integers(row[columns.attention_mask], columns.attention_mask, where)
    return name, masked_tokens(ids, mask, columns.attention_mask, where)


def table_documents(
    table: pa.Table, columns: Columns, row_numbers: Sequence[int], id_prefix: str, where: str
) -> Iterator[Document]:
    """The documents of a table's rows; ``row_numbers`` are those in the source, ``where`` names it in errors."""
    values = {}
    for name in columns.names:
        with one_sentence(f"{where}: column {name!r} cannot be read"):
            values[name] = _column_values(table[name].combine_chunks(), f"{where}: column {name!r}")
    for index, number in enumerate(row_numbers):
        row = {name: column[index] for name, column in values.items()}
        yield row_document(row, columns, f"{id_prefix}{number}", f"{where}, row {number}")


def _column_values(column: pa.Array, where: str) -> list[Any]:
    """Python values of a column, lists of integers as arrays."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or _is_fixed_list(column.type)):
        try:
            values: list[Any] = column.to_pylist()
        except UnicodeDecodeError as error:
            raise CorpusError(f"{where} holds text that is not UTF-8 ({error})") from error
        return values
    if column.type.value_type != pa.bool_() and not pa.types.is_integer(column.type.value_type):
        return column.to_pylist()  # to be refused with its row
    return [
        None if row.values is None or row.values.null_count else row.values.to_numpy(zero_copy_only=False)
        for row in column
    ]


def _is_fixed_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def masked_tokens(ids: np.ndarray, mask: np.ndarray, column: str, where: str) -> np.ndarray:
    """int64 token ids [t] where ``mask`` [t] is 1.

    Padding is dropped at the end, and at the beginning too: samples are padded on the right, so a row that was padded
    on the left moves there. A mask with holes has no such meaning and is refused.
    """
    if len(mask) != len(ids):
        raise CorpusError(f"{where}: {column!r} has {len(mask)} values for {len(ids)} tokens")
    if not np.isin(mask, (0, 1)).all():
        raise CorpusError(f"{where}: {column!r} holds values other than 0 and 1")
    kept = np.flatnonzero(mask)
    if len(kept) and kept[-1] - kept[0] + 1 != len(kept):
        raise CorpusError(
            f"{where}: {column!r} has a hole at position {kept[np.flatnonzero(np.diff(kept) > 1)[0]] + 1}: "
            "padding can stand at the beginning and at the end of a row only"
        )
    return ids[kept]


def _document_id(value: Any, column: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise CorpusError(f"{where}: column {column!r} holds {shown(value)}, a document id is text or a whole number")
    text = check_unicode(str(value), f"{where}: column {column!r}")
    return text.replace("\0", "\\x00")  # which PostgreSQL refuses in text


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise CorpusError(f"{where}: column {column!r} holds {shown(value)}, not text")
    if len(value) > decoding.MAX_DOCUMENT_BYTES:
        raise CorpusError(f"{where}: column {column!r} {decoding.too_long('it')}")
    return decoding.without_bom(check_unicode(value, f"{where}: column {column!r}"))


def _integers(value: Any, column: str, where: str) -> np.ndarray:
    """int64 [t]"""
    is_sequence = isinstance(value, (list, np.ndarray))
    try:
        found = np.asarray(value) if is_sequence else None
    except (ValueError, OverflowError):  # a ragged list
        found = None
    if found is None or found.ndim != 1 or (found.size and found.dtype.kind not in "iub"):
        raise CorpusError(f"{where}: column {column!r} holds {shown(value)}, not a list of whole numbers")
    return found.astype(np.int64)
