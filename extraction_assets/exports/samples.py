"""The samples that examples stand in, read when they are asked for and kept while there is room."""

import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from extraction_assets.database.queries.exported import sample_texts_select

_QUERIED_AT_ONCE = 500  # of SQLite's 999 parameters
_KEPT_BYTES = 128_000_000


class SampleText(NamedTuple):
    """A stored sample."""

    sample_index: int
    document_id: str
    first_token: int
    tokens_text: str
    """Its display strings, as the text of a JSON list."""
    token_ids_text: str

    @property
    def length(self) -> int:
        """In tokens."""
        return self.token_ids_text.count(",") + 1

    def tokens(self) -> list[str]:
        """One display string for each token."""
        found: list[str] = json.loads(self.tokens_text)
        return found

    def token_ids(self) -> list[int]:
        found: list[int] = json.loads(self.token_ids_text)
        return found


class SampleTexts:
    """The samples of a corpus, of which the latest, ``kept_bytes`` of text, stay in memory."""

    def __init__(self, connection: sa.Connection, corpus_id: int, kept_bytes: int = _KEPT_BYTES) -> None:
        self._connection, self._corpus_id, self._most = connection, corpus_id, kept_bytes
        self._kept: OrderedDict[int, SampleText] = OrderedDict()
        self._bytes = 0

    def take(self, indices: Iterable[int]) -> dict[int, SampleText]:
        """Samples by their index; those that are not stored are left out."""
        wanted = set(indices)
        found = {index: self._kept[index] for index in wanted & self._kept.keys()}
        for index in found:
            self._kept.move_to_end(index)
        read = self.read(sorted(wanted - found.keys()))
        self._keep(read.values())
        return found | read

    def read(self, indices: Sequence[int]) -> dict[int, SampleText]:
        """As ``take``, and nothing is kept."""
        found = dict[int, SampleText]()
        for first in range(0, len(indices), _QUERIED_AT_ONCE):
            query = sample_texts_select(self._connection, self._corpus_id, indices[first : first + _QUERIED_AT_ONCE])
            found.update((row[0], SampleText(*row)) for row in self._connection.execute(query).all())
        return found

    def _keep(self, samples: Iterable[SampleText]) -> None:
        for sample in samples:
            self._kept[sample.sample_index] = sample
            self._bytes += _size(sample)
        while self._bytes > self._most:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(sample: SampleText) -> int:
    return sys.getsizeof(sample.tokens_text) + sys.getsizeof(sample.token_ids_text)
