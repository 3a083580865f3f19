"""Which tables are merged with which. Tables of ``FAN_IN`` chunks become one, which is stored, and so do ``FAN_IN`` of
these: where a corpus has grown, what was merged before is read in few tables, and one path to the end is made again.

A merge adds integers and compares: the order and the groups change no bit of a result.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from extraction_assets.catalog import FEATURE_EXAMPLES
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.fingerprints import fingerprint

FAN_IN = 32
"""So few tables that a merge of chunks that nobody adds to writes one table more for 32 that it reads, and so many that
10,000 chunks are three levels."""


class TableToMerge(NamedTuple):
    """The table of a chunk, or of consecutive ones."""

    chunks: tuple[Chunk, ...]
    fingerprint: str
    parts: tuple["TableToMerge", ...] = ()
    """What it is merged from; nothing for a chunk's own."""

    @property
    def key(self) -> str:
        """Beginning of its files' names: the key of its first chunk."""
        return self.chunks[0].key


def tables_to_merge(plan: ExtractionPlan, sae: str) -> list[TableToMerge]:
    """The tables that hold all samples of an SAE once, in the order of the samples: of up to ``2 * FAN_IN`` chunks
    those of the chunks, of more as many tables of the highest level, and of each level below fewer than ``FAN_IN``."""
    return joined([TableToMerge((chunk,), plan.table_fingerprint(chunk, sae)) for chunk in plan.settings.chunks])


def joined(tables: Sequence[TableToMerge]) -> list[TableToMerge]:
    """As ``tables_to_merge``, of the tables of all chunks."""
    level, rest = list(tables), list[TableToMerge]()
    while len(level) > 2 * FAN_IN:
        whole = len(level) // FAN_IN * FAN_IN
        rest = level[whole:] + rest
        level = [_joined(level[at : at + FAN_IN]) for at in range(0, whole, FAN_IN)]
    return level + rest


def joined_tables(tables: Sequence[TableToMerge]) -> Iterator[TableToMerge]:
    """Those of many chunks among the tables and their parts, parts first."""
    for table in tables:
        if table.parts:
            yield from joined_tables(table.parts)
            yield table


def _joined(parts: Sequence[TableToMerge]) -> TableToMerge:
    chunks = tuple(chunk for part in parts for chunk in part.chunks)
    return TableToMerge(chunks, fingerprint(FEATURE_EXAMPLES, joined=[one.fingerprint for one in parts]), tuple(parts))
