"""What a results folder holds: one small file that names all others. A new one takes the place of the one before in one
step, so that a reader has the old results or the new ones, never half.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

FORM = 1
"""Of the files; a folder in the form of a later version is refused."""


class StoredFile(NamedTuple):
    """A Parquet file of a table."""

    name: str
    """In the folder, such as ``features/3-5f….parquet``."""
    part: int | None
    """The value that the table's first key column has in all its rows; None in a kept table."""
    rows: int
    bytes: int


class StoredTable(NamedTuple):
    """A table, and the files with its rows."""

    columns: Mapping[str, str]
    """DuckDB's type of each."""
    key: tuple[str, ...]
    is_kept: bool
    """Whether its rows are few: one file holds them all, and each change replaces it."""
    files: tuple[StoredFile, ...] = ()


class Retired(NamedTuple):
    """A file that no table has any more, and that a reader may still be reading."""

    name: str
    since: float
    """In seconds since 1970."""


class Manifest(NamedTuple):
    """What a results folder holds after its ``number``-th change."""

    number: int
    tables: Mapping[str, StoredTable]
    retired: tuple[Retired, ...] = ()

    @property
    def names(self) -> set[str]:
        """Names of the files of all tables."""
        return {file.name for table in self.tables.values() for file in table.files}

    def text(self) -> bytes:
        tables = {
            name: {**table._asdict(), "files": [file._asdict() for file in table.files]}
            for name, table in self.tables.items()
        }
        said = {
            "form": FORM,
            "number": self.number,
            "tables": tables,
            "retired": [one._asdict() for one in self.retired],
        }
        return json.dumps(said, indent=1).encode()


NOTHING = Manifest(0, {})
"""Of a folder that nothing was written to yet."""


def parse_manifest(text: bytes) -> Manifest:
    """Raises ValueError if the text is not of this form."""
    said = json.loads(text)
    if not isinstance(said, dict) or said.get("form") != FORM:
        raise ValueError(f"it is not of form {FORM}, which this version of extraction_assets reads")
    try:
        tables = {name: _table(one) for name, one in said["tables"].items()}
        return Manifest(said["number"], tables, tuple(Retired(**one) for one in said["retired"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it lacks a field, or has one too many") from error


def _table(said: dict[str, Any]) -> StoredTable:
    files = tuple(StoredFile(**file) for file in said["files"])
    return StoredTable(said["columns"], tuple(said["key"]), said["is_kept"], files)
