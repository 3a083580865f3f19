"""One file with a record for each feature of a layer, and an index of the layers that says where each record begins.

A record is its length in 4 bytes, little-endian, and so many bytes. The file is put together from parts, which arrive
one by one, so that an export that was killed goes on; the parts are removed once the index is there. Layers are written
one after the other, each with a folder for its parts.
"""

import gzip
import json
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.exported_rows import Batch
from extraction_assets.exports.formats.shared.json_text import encode
from extraction_assets.exports.output import Output

Records = Callable[[Batch], Iterable[bytes]]
"""The record of every feature of a batch, in its order."""

_INDEX = "features/index.json.gz"
_LENGTH = struct.Struct("<I")
_COPIED_AT_ONCE = 16 << 20


def folder_of_layer(layer: int) -> str:
    """Where the parts of a layer are, and what says which export it is of."""
    return f"features/layer_{layer}"


def write_layer(out: Output, layer: int, features: int, batches: Sequence[Batch], records: Records) -> None:
    """``features/layer_N.bin``, and its place in ``features/index.json.gz``, whose offsets are those of ``features``
    features: the record of one that is not in ``batches`` has no bytes."""
    name = f"layer_{layer}.bin"
    file, parts = f"features/{name}", [f"{folder_of_layer(layer)}/{batch.number}.bin" for batch in batches]
    whole = out.has(file)
    for batch, part in zip(batches, parts, strict=True):
        if not out.has(file if whole else part, len(batch.neuron_indices)):
            with out.file(part) as path, path.open("wb") as opened:
                for record in records(batch):
                    opened.write(_LENGTH.pack(len(record)) + record)
    if not whole:
        with out.file(file) as path, path.open("wb") as opened:
            for part in parts:
                with out.open(part) as read:
                    shutil.copyfileobj(read, opened, _COPIED_AT_ONCE)
    layers = _index(out)
    if str(layer) not in layers:
        chosen = (neuron_index for batch in batches for neuron_index in batch.neuron_indices)
        with out.open(file) as opened:
            layers[str(layer)] = {"filename": name, "offsets": list(_offsets(opened, features, chosen))}
        _write_index(out, layers)
    for part in parts:
        out.remove(part)


def _index(out: Output) -> dict[str, Any]:
    """The layers that are there: number -> file and offsets. Raises ExportError."""
    if not out.has(_INDEX):
        return {}
    try:
        with out.open(_INDEX) as file:
            found: dict[str, Any] = json.loads(gzip.decompress(file.read()))
    except (OSError, EOFError, ValueError) as error:
        raise ExportError(f"{out.folder}/{_INDEX} is no index of layers ({error}): remove it") from error
    return found


def _write_index(out: Output, layers: dict[str, Any]) -> None:
    """In the order of the layers, whichever was written first."""
    text = encode({layer: layers[layer] for layer in sorted(layers, key=int)})
    with out.file(_INDEX) as path:
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _offsets(file: BinaryIO, features: int, chosen: Iterator[int]) -> Iterator[int]:
    """Where the record of each feature begins, and where the last one ends."""
    at, following = 0, next(chosen, None)
    for neuron_index in range(features):
        yield at
        if neuron_index == following:
            file.seek(at)
            at += _LENGTH.size + _LENGTH.unpack(file.read(_LENGTH.size))[0]
            following = next(chosen, None)
    yield at
