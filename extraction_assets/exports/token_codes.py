"""Tokens of samples as numbers of distinct texts, so that a text is read and written once, not for every example."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.samples import SampleTexts

_KEPT_TOKENS = 50_000_000  # 200 MB
_QUERIED_AT_ONCE = 4_000


class _Numbers(dict[str, int]):
    """Text -> its number; a new one has the next."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        """By their numbers, for other threads too: it only grows."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        self.texts.append(text)
        return number


def offsets_of(listed: Sequence[np.ndarray]) -> np.ndarray:
    """Where each of several arrays begins in all of them, and where the last one ends: int32 [n + 1]."""
    offsets = np.zeros(len(listed) + 1, dtype=np.int32)
    np.cumsum([len(one) for one in listed], out=offsets[1:])
    return offsets


def joined(listed: Sequence[np.ndarray]) -> np.ndarray:
    """int32 [n]: all of several arrays."""
    return np.concatenate(listed) if listed else np.zeros(0, dtype=np.int32)


class TokenCodes:
    """The tokens of samples by their index, of which the latest ``kept_tokens`` stay in memory."""

    def __init__(self, samples: SampleTexts, title: str, kept_tokens: int = _KEPT_TOKENS) -> None:
        self._samples, self._title, self._most = samples, title, kept_tokens
        self._codes = _Numbers()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._tokens = 0

    def take_each(self, indices: Sequence[int]) -> list[np.ndarray]:
        """The tokens of each index: int32 [its tokens], see ``texts``. Raises ExportError for a sample that is not
        stored."""
        distinct = dict.fromkeys(indices)
        found = {index: self._kept[index] for index in distinct if index in self._kept}
        missing = [index for index in distinct if index not in found]
        for index in found:
            self._kept.move_to_end(index)
        for first in range(0, len(missing), _QUERIED_AT_ONCE):
            found |= self._read(missing[first : first + _QUERIED_AT_ONCE])
        self._forget()
        return [found[index] for index in indices]

    def texts(self, codes: np.ndarray) -> pa.DictionaryArray:
        """Codes int32 [n] as texts: a dictionary of those that occur, sorted, so that it depends on nothing else. May
        run in another thread than the other methods."""
        known = pa.array(self._codes.texts[:], pa.string())
        occurs = np.zeros(len(known), dtype=bool)
        occurs[codes] = True
        used = known.filter(pa.array(occurs))
        order = pc.sort_indices(used)
        number = np.zeros(len(known), dtype=np.int32)
        number[np.flatnonzero(occurs)[order.to_numpy()]] = np.arange(len(used), dtype=np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(np.take(number, codes, mode="clip")), used.take(order))

    def _read(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        texts = self._samples.take(indices)
        for index in indices:
            if index not in texts:
                raise ExportError(
                    f"sample {index}, which an example of {self._title} names, is not in the results database: merge "
                    "the extraction again"
                )
        read = {index: self._coded(texts[index].tokens()) for index in indices}
        self._kept.update(read)
        self._tokens += sum(map(len, read.values()))
        return read

    def _coded(self, tokens: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(self._codes.__getitem__, tokens), np.int32, len(tokens))

    def _forget(self) -> None:
        while self._tokens > self._most:
            self._tokens -= len(self._kept.popitem(last=False)[1])
