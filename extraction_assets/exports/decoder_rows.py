"""The decoder rows of an SAE, read one by one: the weights have several GiB, and are let go of before the first is."""

import os
import tempfile
import weakref

import numpy as np
import torch

from extraction_assets.engine.memory import release_memory
from extraction_assets.engine.saes.checkpoint import read_sae
from extraction_assets.engine.saes.sae import decoder_rows
from extraction_assets.settings import ResolvedSae

_ROWS_AT_ONCE = 4096


class DecoderRows:
    """Rows in a file without a name, in TMPDIR, which goes away with this object."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._file = tempfile.TemporaryFile(prefix="extraction-assets-")  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)
        self._count, width = rows.shape
        self._bytes = width * np.dtype(np.float32).itemsize
        for part in rows.split(_ROWS_AT_ONCE):
            self._file.write(part.contiguous().numpy().data)
        self._file.flush()

    def __getitem__(self, neuron_index: int) -> np.ndarray:
        """float32 [d_out]"""
        if not 0 <= neuron_index < self._count:
            raise IndexError(f"there is no decoder row {neuron_index}")
        return np.frombuffer(os.pread(self._file.fileno(), self._bytes, neuron_index * self._bytes), np.float32)


def read_decoder_rows(sae: ResolvedSae) -> DecoderRows | None:
    """The rows of ``engine.saes.sae.SAE.decoder``; None of an SAE that encodes only.

    Peak memory is that of the weights, once. Raises CheckpointError or FileNotFoundError.
    """
    rows, _ = decoder_rows(read_sae(sae))
    found = None if rows is None else DecoderRows(rows)
    del rows
    release_memory()
    return found
