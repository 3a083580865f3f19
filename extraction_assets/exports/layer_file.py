"""One file with a record for each feature of a layer, and where each record begins.

A record is its length in 4 bytes, little-endian, and so many bytes. The file is put together from parts, which arrive
one by one, so that an export that was killed goes on; the parts are removed once the index is there.
"""

import gzip
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

from extraction_assets.exports.json_text import encode
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import Batch

Records = Callable[[Batch], Iterable[bytes]]
"""The record of every feature of a batch, in its order."""

_LENGTH = struct.Struct("<I")
_COPIED_AT_ONCE = 16 << 20


def write_layer(out: Output, layer: int, features: int, batches: Sequence[Batch], records: Records) -> None:
    """``features/layer_N.bin`` and ``features/index.json.gz``, whose offsets are those of ``features`` features: the
    record of one that is not in ``batches`` has no bytes."""
    index, file = "features/index.json.gz", f"layer_{layer}.bin"
    parts = [f"features/parts/{batch.number}.bin" for batch in batches]
    whole = out.has(f"features/{file}")
    for batch, part in zip(batches, parts, strict=True):
        if not out.has(f"features/{file}" if whole else part, len(batch.neuron_indices)):
            with out.file(part) as path, path.open("wb") as opened:
                for record in records(batch):
                    opened.write(_LENGTH.pack(len(record)) + record)
    if not whole:
        with out.file(f"features/{file}") as path, path.open("wb") as opened:
            for part in parts:
                with out.open(part) as read:
                    shutil.copyfileobj(read, opened, _COPIED_AT_ONCE)
    if not out.has(index):
        chosen = (neuron_index for batch in batches for neuron_index in batch.neuron_indices)
        with out.open(f"features/{file}") as opened:
            offsets = list(_offsets(opened, features, chosen))
        with out.file(index) as path:
            text = encode({str(layer): {"filename": file, "offsets": offsets}})
            path.write_bytes(gzip.compress(text.encode(), mtime=0))
    for part in parts:
        out.remove(part)


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
