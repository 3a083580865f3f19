"""Tokens of samples as numbers of distinct texts, so that a text is read and written once, not for every example."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.formats.shared.json_lists import DamagedListError, string_lists
from extraction_assets.exports.samples import SampleText, SampleTexts

_KEPT_TOKENS = 50_000_000  # 200 MB
_TOKENS_AT_ONCE = 500_000  # some 30 MB while their texts are read


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


class SampleCodes(NamedTuple):
    """The tokens of some samples."""

    codes: Sequence[np.ndarray]
    """Of each different sample: int32 [its tokens], see ``TokenCodes.texts``."""
    place: np.ndarray
    """int64 [n]: which of these a sample is."""

    def lists(self) -> pa.ListArray:
        """The codes of each sample [n]. May run in another thread."""
        parts = [self.codes[place] for place in self.place.tolist()]  # a fifth of the time of ListArray.take
        offsets = np.zeros(len(parts) + 1, dtype=np.int32)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        codes = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(codes))


class TokenCodes:
    """The tokens of samples by their index, of which the latest ``kept_tokens`` stay in memory; samples have up to
    ``max_length``."""

    def __init__(self, samples: SampleTexts, title: str, max_length: int, kept_tokens: int = _KEPT_TOKENS) -> None:
        self._samples, self.title, self._most = samples, title, kept_tokens
        self._read_at_once = max(1, _TOKENS_AT_ONCE // max_length)
        self._numbers = _Numbers()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._tokens = 0

    def take(self, indices: np.ndarray) -> SampleCodes:
        """The tokens of samples int64 [n], in any order. Raises ExportError for one that is not stored."""
        distinct, place = np.unique(indices, return_inverse=True)
        wanted = distinct.tolist()
        found = {index: self._kept[index] for index in wanted if index in self._kept}
        for index in found:
            self._kept.move_to_end(index)
        missing = [index for index in wanted if index not in found]
        for first in range(0, len(missing), self._read_at_once):
            found |= self._read(missing[first : first + self._read_at_once])
        self._forget()
        return SampleCodes([found[index] for index in wanted], place)

    def texts(self, codes: np.ndarray) -> pa.DictionaryArray:
        """Codes int32 [n] as texts: a dictionary of those that occur, sorted, so that it depends on nothing else. May
        run in another thread than the other methods."""
        known = pa.array(self._numbers.texts[:], pa.string())
        occurs = np.bincount(codes, minlength=len(known)) > 0
        used = known.filter(pa.array(occurs))
        order = pc.sort_indices(used)
        number = np.zeros(len(known), dtype=np.int32)
        number[np.flatnonzero(occurs)[order.to_numpy()]] = np.arange(len(used), dtype=np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(np.take(number, codes, mode="clip")), used.take(order))

    def _read(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        texts = self._samples.read(indices)
        for index in indices:
            if index not in texts:
                raise ExportError(
                    f"sample {index}, which an example of {self.title} names, is not in the results database: merge "
                    "the extraction again"
                )
        read = self._coded([texts[index] for index in indices])
        self._kept.update(read)
        self._tokens += sum(map(len, read.values()))
        return read

    def _coded(self, samples: Sequence[SampleText]) -> dict[int, np.ndarray]:
        try:
            lists = string_lists([one.tokens_text for one in samples])
        except DamagedListError as error:
            first, last = samples[0].sample_index, samples[-1].sample_index
            raise ExportError(
                f"the tokens of one of the samples {first} to {last} of {self.title} are damaged in the results "
                "database: merge the extraction again"
            ) from error
        found = lists.values.dictionary_encode()
        number = np.array([self._numbers[text] for text in found.dictionary.to_pylist()], dtype=np.int32)
        codes = number[found.indices.to_numpy()]
        parts = np.split(codes, lists.offsets.to_numpy()[1:-1])
        return {one.sample_index: part.copy() for one, part in zip(samples, parts, strict=True)}

    def _forget(self) -> None:
        while self._tokens > self._most:
            self._tokens -= len(self._kept.popitem(last=False)[1])
