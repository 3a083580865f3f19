"""Which statistics belong to a chunk's table, and a check of a chunk's files that loads no tensor."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from extraction_assets.stores.chunk_names import statistics_path
from extraction_assets.stores.chunk_record import Record, look_at
from extraction_assets.stores.sealed import DamagedFileError, damaged


def look_at_files(path: Path, fingerprint: str) -> None:
    """As ``check_files``, but looks at headers, footers and sizes alone: finds a file that is cut or of another format,
    not one with other bytes in its middle."""
    record = look_at(path, fingerprint)
    if path.suffix == ".parquet":
        beside = statistics_path(path, named_statistics(path, record))
        with as_damage_of(path, beside):
            look_at(beside, fingerprint)


def named_statistics(table: Path, record: Record) -> str:
    """The checksum of the statistics that a table's record names. Raises DamagedFileError if it names none."""
    checksum = record.get("statistics")
    if not isinstance(checksum, str) or not re.fullmatch("[0-9a-f]{64}", checksum):
        raise damaged(table, "it names no statistics")
    return checksum


@contextlib.contextmanager
def as_damage_of(table: Path, statistics: Path) -> Iterator[None]:
    """Names the table as the damaged file if its statistics are damaged, because the table has to be recomputed."""
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(table, f"it lacks its statistics {statistics.name}") from error
    except DamagedFileError as error:
        raise DamagedFileError(str(error), table) from error
