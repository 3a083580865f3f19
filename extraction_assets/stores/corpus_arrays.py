"""The arrays of a stored corpus: writes them as they are, and maps them only if they belong together."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from extraction_assets.engine.corpora.message_spans import SampleMessages
from extraction_assets.engine.corpora.tokenize import SampleStream, TokenizedCorpus
from extraction_assets.engine.file_boundary.npy_header import read_npy_header
from extraction_assets.stores.document_ids import DocumentIds, DocumentIdsWriter
from extraction_assets.stores.sealed import DamagedFileError, damaged, naming, open_stored, write_all
from extraction_assets.stores.sealed_json import parse_json

TOKENIZE_AGAIN = "`run NAME --missing` tokenizes the corpus again"
"""What to do about a damaged file of a corpus."""

DOCUMENTS = "document_ids.json"

_DTYPES: dict[str, type[np.generic]] = {
    "token_ids": np.int32,
    "attention_mask": np.bool_,
    "special_tokens_mask": np.bool_,
    "document_numbers": np.int64,
    "first_tokens": np.int64,
}
_BY_POSITION = ("token_ids", "attention_mask", "special_tokens_mask")
"""[N, T]; the others are [N]."""

_MESSAGE_OFFSETS, _MESSAGE_SPANS, _MESSAGE_ROLES = "message_offsets.npy", "message_spans.npy", "message_roles.json"

ARRAYS = tuple(_DTYPES)
FILES = (*(f"{name}.npy" for name in ARRAYS), DOCUMENTS)
"""Every file of a corpus but its manifest."""
CHAT_FILES = (*FILES, _MESSAGE_OFFSETS, _MESSAGE_SPANS, _MESSAGE_ROLES)
"""Those of a corpus of chats."""


def write_arrays(folder: Path, corpus: TokenizedCorpus | SampleStream) -> tuple[str, ...]:
    """Writes the files of a corpus block by block; gives their names, ``FILES`` or ``CHAT_FILES``. An
    OSError of the disk names the file; nothing of it waits in a buffer, to fail again without a name on closing."""
    with contextlib.ExitStack() as stack:
        paths = {name: folder / f"{name}.npy" for name in ARRAYS}
        files = {name: stack.enter_context(path.open("wb", buffering=0)) for name, path in paths.items()}
        for name, dtype in _DTYPES.items():
            shape = corpus.shape if name in _BY_POSITION else corpus.shape[:1]
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            with naming(paths[name]):
                np.lib.format.write_array_header_1_0(files[name], header)  # as np.save
        document_ids = DocumentIdsWriter(stack.enter_context((folder / DOCUMENTS).open("wb", buffering=0)))
        for block in corpus.blocks():
            for name, dtype in _DTYPES.items():
                with naming(paths[name]):
                    write_all(files[name], _bytes_of(getattr(block, name), dtype))
            with naming(folder / DOCUMENTS):
                document_ids.add(block.document_ids)
        with naming(folder / DOCUMENTS):
            document_ids.end()
    if corpus.messages is None:
        return FILES
    np.save(folder / _MESSAGE_OFFSETS, corpus.messages.offsets)
    np.save(folder / _MESSAGE_SPANS, corpus.messages.spans)
    (folder / _MESSAGE_ROLES).write_text(json.dumps(corpus.messages.roles), "utf-8")
    return CHAT_FILES


def _bytes_of(array: np.ndarray, dtype: type[np.generic]) -> memoryview:
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def map_arrays(folder: Path, *, chats: bool = False) -> TokenizedCorpus:
    """The arrays of a folder, memory-mapped, and its document ids; with ``chats`` also who speaks where.

    Raises DamagedFileError for a file that is no such array, or whose dtype, shape or document numbers do not belong to
    the others'.
    """
    arrays = {name: _mapped(folder / f"{name}.npy", dtype) for name, dtype in _DTYPES.items()}
    ids = DocumentIds(folder / DOCUMENTS, TOKENIZE_AGAIN)
    shape = arrays["token_ids"].shape
    for name, array in arrays.items():
        expected = shape if name in _BY_POSITION else shape[:1]
        if len(shape) != 2 or array.shape != expected:
            raise _damaged(folder / f"{name}.npy", f"its shape is {array.shape}, and token_ids.npy has {shape}")
    numbers = arrays["document_numbers"]
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(ids):
        raise _damaged(folder / "document_numbers.npy", f"it names other documents than the {len(ids)} of {DOCUMENTS}")
    messages = _messages(folder, shape) if chats else None
    return TokenizedCorpus(**arrays, document_ids=ids, messages=messages)


def _messages(folder: Path, shape: tuple[int, ...]) -> SampleMessages:
    """The messages of a corpus of this ``shape`` (N, T)."""
    offsets, spans = _mapped(folder / _MESSAGE_OFFSETS, np.int64), _mapped(folder / _MESSAGE_SPANS, np.int32)
    roles = _roles(folder / _MESSAGE_ROLES)
    if spans.ndim != 2 or spans.shape[1] != 3:
        raise _damaged(folder / _MESSAGE_SPANS, f"its shape is {spans.shape}, not that of spans")
    steps = np.diff(offsets) if offsets.shape == (shape[0] + 1,) else np.array([-1])
    if (steps < 0).any() or offsets[0] != 0 or offsets[-1] != len(spans):
        raise _damaged(folder / _MESSAGE_OFFSETS, f"it does not divide {len(spans)} messages among {shape[0]} samples")
    role, start, stop = spans.T
    if not ((role >= 0) & (role < len(roles)) & (start >= 0) & (start < stop) & (stop <= shape[1])).all():
        raise _damaged(folder / _MESSAGE_SPANS, "it names roles or positions that the corpus does not have")
    return SampleMessages(offsets, spans, roles)


def _mapped(path: Path, dtype: type[np.generic]) -> np.ndarray:
    try:
        with open_stored(path, TOKENIZE_AGAIN) as file:
            header, offset = read_npy_header(file), file.tell()
        if header.dtype == dtype and not header.is_fortran:
            return np.memmap(path, dtype, "r", offset, header.shape)
    except (OSError, MemoryError, DamagedFileError):  # of the disk or the machine, or said already
        raise
    except Exception as error:  # sizes that no file can have: NumPy and mmap raise several types
        raise _damaged(path, f"it is no array that can be mapped ({error})") from error
    raise _damaged(path, f"it holds {header.dtype}, not {np.dtype(dtype)} in C order")


def _roles(path: Path) -> list[str]:
    with open_stored(path, TOKENIZE_AGAIN) as file:
        roles: Any = parse_json(file.read(), path, TOKENIZE_AGAIN)
    if not isinstance(roles, list) or not all(isinstance(one, str) for one in roles):
        raise _damaged(path, "it is no list of roles")
    return roles


def _damaged(path: Path, what: str) -> Exception:
    return damaged(path, what, TOKENIZE_AGAIN)
