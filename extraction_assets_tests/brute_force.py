"""Merged results worked out densely with NumPy, from the stored SAE features alone. Imports nothing of the engine."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from extraction_assets_tests.statistics_oracle import Firings, differences


class StoredFeatures:
    """All chunks' stored features, from which one feature at a time is densified."""

    def __init__(self, folder: Path, counted: np.ndarray) -> None:
        self.counted = counted
        """bool [N, T]"""
        tokens, features, values, first_token = [], [], [], 0
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="np") as file:
                n, positions, self.num_features = json.loads(file.metadata()["extraction_assets"])["shape"]
            chunk = load_file(path)
            tokens.append(np.repeat(np.arange(n * positions), np.diff(chunk["row_pointers"])) + first_token)
            features.append(chunk["feature_ids"])
            values.append(chunk["values"])
            first_token += n * positions
        by_feature = np.argsort(np.concatenate(features), kind="stable")
        self._tokens = np.concatenate(tokens)[by_feature]
        self._values = np.concatenate(values)[by_feature]
        counts = np.bincount(np.concatenate(features), minlength=self.num_features)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts

    def dense(self, feature: int) -> np.ndarray:
        """Activations of one feature at counted positions: float32 [N, T], zero elsewhere."""
        column = np.zeros(self.counted.size, dtype=np.float32)
        own = slice(self._starts[feature], self._ends[feature])
        column[self._tokens[own]] = self._values[own]
        return np.where(self.counted, column.reshape(self.counted.shape), 0)


def top_examples(dense: np.ndarray, top_k: int) -> list[tuple[Any, ...]]:
    """A feature's examples (max_activation, sample_index, positions, activations), strongest first."""
    maxima = dense.max(axis=1)  # [N]
    order = np.lexsort((np.arange(len(maxima)), -maxima))[:top_k]  # by (max descending, sample ascending)
    examples = []
    for sample in order[maxima[order] > 0]:
        row = dense[sample]
        positions = np.argsort(-row, kind="stable")
        positions = positions[row[positions] > 0]
        examples.append((float(maxima[sample]), int(sample), positions.tolist(), row[positions].tolist()))
    return examples


def feature_differences(row: dict[str, Any], dense: np.ndarray, counted: np.ndarray) -> list[str]:
    """Which columns of a feature's row in the table ``features`` are not what they must be."""
    fires = dense > 0
    values, ends = dense[fires].tolist(), fires.sum(axis=1).cumsum().tolist()
    firings = Firings([values[start:end] for start, end in pairwise([0, *ends])], int(counted.sum()))
    found = {name: json.loads(value) if isinstance(value, str) else value for name, value in row.items()}
    return differences(found, firings)
