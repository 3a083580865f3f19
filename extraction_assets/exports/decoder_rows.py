"""The decoder rows of an SAE, read one by one: all of them have several GiB, and are in a file before the first is."""

import os
import tempfile
import weakref
from collections.abc import Iterable

import numpy as np
import torch

from extraction_assets.engine.memory import release_memory
from extraction_assets.engine.saes.decoder_parts import decoder_parts
from extraction_assets.settings import ResolvedSae


class DecoderRows:
    """Rows in a file without a name, in TMPDIR, which goes away with this object; ``len`` of them."""

    def __init__(self, parts: Iterable[torch.Tensor]) -> None:
        self._file = tempfile.TemporaryFile(prefix="extraction-assets-")  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)
        self._count = self._bytes = 0
        for rows in parts:
            self._count += len(rows)
            self._bytes = rows.shape[1] * np.dtype(np.float32).itemsize
            self._file.write(rows.contiguous().numpy().data)
        self._file.flush()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, neuron_index: int) -> np.ndarray:
        """float32 [d_out]"""
        if not 0 <= neuron_index < self._count:
            raise IndexError(f"there is no decoder row {neuron_index}")
        return np.frombuffer(os.pread(self._file.fileno(), self._bytes, neuron_index * self._bytes), np.float32)


def read_decoder_rows(sae: ResolvedSae) -> DecoderRows | None:
    """The rows of ``engine.saes.sae.SAE.decoder``; None of an SAE that encodes only.

    Peak memory is that of some rows where the checkpoint is a safetensors file, of the weights where it is another.
    Raises CheckpointError or FileNotFoundError.
    """
    found = DecoderRows(decoder_parts(sae))
    release_memory()
    return found if len(found) else None
