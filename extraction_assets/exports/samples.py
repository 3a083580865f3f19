"""The samples that examples stand in, read when they are asked for and kept while there is room."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from extraction_assets.database.queries.exported import sample_texts_select

_QUERIED_AT_ONCE = 500  # of SQLite's 999 parameters
_KEPT_CHARACTERS = 64_000_000


class SampleText(NamedTuple):
    """A stored sample."""

    sample_index: int
    document_id: str
    first_token: int
    tokens_text: str
    """Its display strings, as the text of a JSON list."""
    token_ids_text: str

    def tokens(self) -> list[str]:
        """One display string for each token."""
        found: list[str] = json.loads(self.tokens_text)
        return found

    def token_ids(self) -> list[int]:
        found: list[int] = json.loads(self.token_ids_text)
        return found


class SampleTexts:
    """The samples of a corpus, of which the latest ``kept_characters`` stay in memory."""

    def __init__(self, connection: sa.Connection, corpus_id: int, kept_characters: int = _KEPT_CHARACTERS) -> None:
        self._connection, self._corpus_id, self._most = connection, corpus_id, kept_characters
        self._kept: OrderedDict[int, SampleText] = OrderedDict()
        self._characters = 0

    def take(self, indices: Iterable[int]) -> dict[int, SampleText]:
        """Samples by their index; those that are not stored are left out."""
        wanted = set(indices)
        found = {index: self._kept[index] for index in wanted & self._kept.keys()}
        for index in found:
            self._kept.move_to_end(index)
        missing = sorted(wanted - found.keys())
        for first in range(0, len(missing), _QUERIED_AT_ONCE):
            query = sample_texts_select(self._connection, self._corpus_id, missing[first : first + _QUERIED_AT_ONCE])
            found.update((row[0], SampleText(*row)) for row in self._connection.execute(query))
        self._keep(found[index] for index in missing if index in found)
        return found

    def _keep(self, samples: Iterable[SampleText]) -> None:
        for sample in samples:
            self._kept[sample.sample_index] = sample
            self._characters += _size(sample)
        while self._characters > self._most:
            self._characters -= _size(self._kept.popitem(last=False)[1])


def _size(sample: SampleText) -> int:
    return len(sample.tokens_text) + len(sample.token_ids_text)
