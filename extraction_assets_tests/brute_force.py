"""Merged results worked out with NumPy, from the stored SAE features alone. Imports nothing of the engine."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from extraction_assets_tests.statistics_oracle import Firings, differences


class StoredFeatures:
    """All chunks' stored features, from which one feature at a time is taken."""

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
        narrow = np.uint16 if self.num_features <= 1 << 16 else np.int64  # which NumPy sorts five times sooner
        by_feature = np.argsort(np.concatenate(features).astype(narrow), kind="stable")
        self._tokens = np.concatenate(tokens)[by_feature]
        self._values = np.concatenate(values)[by_feature]
        counts = np.bincount(np.concatenate(features), minlength=self.num_features)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts

    def rows(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples where a value of a feature is stored, int [S], and its activations there at counted positions,
        zero elsewhere, float32 [S, T]."""
        of_feature = slice(self._starts[feature], self._ends[feature])
        sample, position = np.divmod(self._tokens[of_feature], self.counted.shape[1])
        samples, row = np.unique(sample, return_inverse=True)
        rows = np.zeros((len(samples), self.counted.shape[1]), dtype=np.float32)
        rows[row, position] = self._values[of_feature]
        return samples, np.where(self.counted[samples], rows, 0)

    def dense(self) -> np.ndarray:
        """Every activation at counted positions, zero elsewhere, float32 [N, T, F]: for small corpora."""
        found = np.zeros((*self.counted.shape, self.num_features), dtype=np.float32)
        for feature in range(self.num_features):
            samples, rows = self.rows(feature)
            found[samples, :, feature] = rows
        return found


def top_examples(samples: np.ndarray, rows: np.ndarray, top_k: int) -> list[tuple[Any, ...]]:
    """A feature's examples (max_activation, sample_index, positions, activations), strongest first."""
    maxima = rows.max(axis=1, initial=0)  # [S]
    order = np.lexsort((samples, -maxima))[:top_k]  # by (max descending, sample ascending)
    examples = []
    for number in order[maxima[order] > 0]:
        row = rows[number]
        (positions,) = (row > 0).nonzero()
        positions = positions[np.argsort(-row[positions], kind="stable")]
        examples.append((float(maxima[number]), int(samples[number]), positions.tolist(), row[positions].tolist()))
    return examples


def feature_differences(row: dict[str, Any], rows: np.ndarray, counted: np.ndarray) -> list[str]:
    """Which columns of a feature's row in the table ``features`` are not what they must be."""
    fires = rows > 0
    values, ends = rows[fires].tolist(), fires.sum(axis=1).cumsum().tolist()
    silent = [list[float]()] * (len(counted) - len(rows))  # samples without a stored value
    firings = Firings([values[start:end] for start, end in pairwise([0, *ends])] + silent, int(counted.sum()))
    found = {name: json.loads(value) if isinstance(value, str) else value for name, value in row.items()}
    return differences(found, firings)
