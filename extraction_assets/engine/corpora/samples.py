"""Rows of a tokenized corpus as tensors, and which of their positions count."""

import numpy as np

from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.engine.shapes import Samples
from extraction_assets.settings import CorpusSettings


def counted_positions(arrays: TokenizedCorpus, rows: slice, settings: CorpusSettings) -> np.ndarray:
    """bool [n, T] of some rows: no padding, and no special token or position that the settings exclude."""
    counted = np.array(arrays.attention_mask[rows])
    if not settings.count_special_tokens:
        counted &= ~arrays.special_tokens_mask[rows]
    counted[:, : settings.exclude_first_positions] = False
    counted[:, list(settings.exclude_positions)] = False
    return counted


def samples_of(arrays: TokenizedCorpus, rows: slice, start_sample: int, settings: CorpusSettings) -> Samples:
    """Rows of a corpus whose first sample is number ``start_sample``, as tensors, with the positions that count."""
    import torch

    token_ids = torch.from_numpy(arrays.token_ids[rows].astype(np.int64))
    attention = torch.from_numpy(np.array(arrays.attention_mask[rows]))
    counted = torch.from_numpy(counted_positions(arrays, rows, settings))
    return Samples(token_ids, attention, counted, start_sample + rows.start)
