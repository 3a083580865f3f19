"""A results database: which extractions it holds, and each of them by its name."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from extraction_assets.database.queries.extractions import UnknownResultError, merges
from extraction_assets.python_api.closing import Closing
from extraction_assets.python_api.extraction import ExtractionResults
from extraction_assets.python_api.source import Source
from extraction_assets.stores.chunk_store import ChunkStore

if TYPE_CHECKING:
    import pandas as pd


class Results(Closing):
    """What ``open_results`` gives: ``results["demo/layer1"]`` is one (extraction, SAE).

    It only reads. Every call sees what is merged by then; nothing is read before it is asked for.
    """

    def __init__(self, url: str, store: ChunkStore) -> None:
        self._source = Source(url, store)
        self._known: dict[str, ExtractionResults] = {}

    def close(self) -> None:
        """Closes the connections and lets go of weights; what is asked for afterwards raises ClosedError."""
        for one in self._known.values():
            one.close()
        self._known.clear()
        self._source.close()

    @property
    def url(self) -> str:
        """The database, without its password."""
        return self._source.url

    @property
    def store(self) -> ChunkStore:
        """Where chunk files are looked for."""
        return self._source.store

    def extractions(self) -> "pd.DataFrame":
        """One row for each merged (extraction, SAE)."""
        from extraction_assets.database.queries.frames import list_extractions

        with self.connection() as connection:
            return list_extractions(connection)

    def names(self) -> list[str]:
        """What can be asked for: ``extraction/sae`` of each."""
        with self.connection() as connection:
            return sorted(f"{name}/{sae}" for name, sae in merges(connection))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> ExtractionResults:
        """The results of ``extraction/sae``; of ``extraction`` alone where it has one SAE.

        Raises UnknownResultError, which names what is there.
        """
        known = self.names()
        chosen = [one for one in known if name in (one, one.partition("/")[0])]
        if len(chosen) != 1:
            there = ", ".join(known) or "nothing is merged yet"
            what = "name one of its SAEs" if chosen else "there are no such results"
            raise UnknownResultError(f"{name!r}: {what}; {self.url} holds: {there}")
        found = chosen[0]
        if found not in self._known:
            self._known[found] = ExtractionResults(self._source, *found.split("/"))
        return self._known[found]

    def __repr__(self) -> str:
        held = "closed" if self._source.is_closed else ", ".join(self.names()) or "nothing is merged yet"
        return f"<Results of {self.url}: {held}>"

    def connection(self) -> AbstractContextManager[sa.Connection]:
        """A connection that reads, for queries of one's own. Raises ClosedError, or DatabaseError within the block."""
        return self._source.connection()
