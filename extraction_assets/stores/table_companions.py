"""Which files belong to a chunk's table, and a check of a chunk's files that loads no tensor."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from extraction_assets.stores.chunk_names import COMPANIONS, STATISTICS_FILE, companion_path
from extraction_assets.stores.chunk_record import Record, look_at
from extraction_assets.stores.sealed import DamagedFileError, damaged


def look_at_files(path: Path, fingerprint: str, look: Callable[[Path, str], Record] = look_at) -> None:
    """As ``check_files``, but looks at headers, footers and sizes alone: finds a file that is cut or of another format,
    not one with other bytes in its middle."""
    record = look(path, fingerprint)
    if path.suffix == ".parquet":
        for kind, (beside, _) in companions_of(path, record).items():
            with as_damage_of(path, beside, kind):
                look(beside, fingerprint)


def companions_of(table: Path, record: Record) -> dict[str, tuple[Path, str]]:
    """The files beside a table that its record names, {kind: (path, checksum)}. All tables have statistics, those of
    earlier versions and those made with ``statistics: basic`` nothing else.

    Raises DamagedFileError if the record does not name them as it should.
    """
    found = {}
    for kind in COMPANIONS:
        checksum = record.get(kind)
        if checksum is None and kind != STATISTICS_FILE:
            continue
        if not isinstance(checksum, str) or not re.fullmatch("[0-9a-f]{64}", checksum):
            raise damaged(table, f"it names no {kind}")
        found[kind] = companion_path(table, kind, checksum), checksum
    return found


@contextlib.contextmanager
def as_damage_of(table: Path, beside: Path, kind: str) -> Iterator[None]:
    """Names the table as the damaged file if one beside it is damaged, because the table has to be recomputed."""
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(table, f"it lacks its {kind} {beside.name}") from error
    except DamagedFileError as error:
        raise DamagedFileError(str(error), table) from error
