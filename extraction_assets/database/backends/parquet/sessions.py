"""Connections to a results folder, as SQLAlchemy takes a driver's: DuckDB in memory reads the files of one manifest,
and a commit publishes the next one.

Every transaction sees one manifest: DuckDB keeps the views of a transaction's beginning. A writer writes whole files
beside those that are there; nobody reads them before the manifest names them, and a writer that dies leaves nothing but
files, which the next one removes.
"""

import contextlib
import math
import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import sqlalchemy as sa

from extraction_assets.database.backends.parquet.definitions import (
    definition,
    list_views,
    new_table,
    shell_script,
)
from extraction_assets.database.backends.parquet.folder import (
    MARK,
    SCRIPT,
    ResultsFolder,
    manifest_name,
    read_manifest,
)
from extraction_assets.database.backends.parquet.manifest import FORM, Manifest, Retired, StoredFile, StoredTable
from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError

if TYPE_CHECKING:
    import pyarrow as pa

RETIRED_SECONDS = 900
"""How long a file stays that no table has any more: longer than any reader reads."""

_MEMORY = "2GB"
_KEPT_MANIFESTS = 20
_ORPHAN_SECONDS = 3600.0  # of a writer that may be alive, where nobody holds the lock
_MOST_FILES = 16  # of one part; then they become one
_WRITTEN_BY_HAND = {"feature_labels"}
_CHANGES = re.compile(r"\s*(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+\"?(\w+)", re.IGNORECASE)


class ResultsDatabase:
    """DuckDB in memory for one engine; its sessions share what it remembers of files."""

    def __init__(self, folder: ResultsFolder) -> None:
        self.folder = folder
        self.manifest: Manifest | None = None
        self._lock, self._looked_at = threading.Lock(), -math.inf
        self._writes = False
        scratch = os.path.join(tempfile.gettempdir(), f"extraction-assets-duckdb-{uuid.uuid4().hex}")
        settings: dict[str, Any] = {
            "memory_limit": _MEMORY,
            "temp_directory": scratch,
            "autoinstall_known_extensions": False,
        }
        self._duck = duckdb.connect(config=settings)
        self._duck.execute("SET parquet_metadata_cache = true")
        if folder.filesystem is not None:
            self._duck.register_filesystem(folder.filesystem)

    def session(self) -> "Session":
        """A connection of its own."""
        return Session(self, self._duck.cursor())

    def refresh(self) -> None:
        """Have the newest manifest, unless a session is changing it, or it was looked for just before."""
        with self._lock:
            recent = time.monotonic() - self._looked_at < self.folder.look_seconds
            if not self._writes and (not recent or self.manifest is None):
                self._look()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The block of the one session that writes, with the newest manifest."""
        with self.folder.locked():
            with self._lock:
                self._look()
                self._writes = True
            try:
                yield
            finally:
                self._looked_at = -math.inf  # who was refused for another host's change sees that change
                self._writes = False

    def _look(self) -> None:
        newest = max(self.folder.numbers(), default=0)
        if self.manifest is None or self.manifest.number != newest:
            self._define(read_manifest(self.folder, newest))
        self._looked_at = time.monotonic()

    def _define(self, manifest: Manifest) -> None:
        known = {} if self.manifest is None else self.manifest.tables
        changed = {name: table for name, table in manifest.tables.items() if known.get(name) != table}
        duck = self._duck.cursor()
        duck.begin()
        for name, table in changed.items():
            for statement in definition(name, table, self.folder.address):
                duck.execute(statement)
        for statement in list_views() if manifest.tables and not known else ():
            duck.execute(statement)
        duck.commit()
        duck.close()
        self.manifest = manifest


class Session:
    """A connection. Methods named as in PEP 249 are SQLAlchemy's; the others are for bulk changes."""

    def __init__(self, database: ResultsDatabase, duck: duckdb.DuckDBPyConnection) -> None:
        self._database, self._duck = database, duck
        self._is_open = False
        self._stack = contextlib.ExitStack()
        self._writes = False
        self._tables: dict[str, StoredTable] = {}
        self._touched: set[str] = set()
        self._made: list[str] = []

    def cursor(self) -> "Cursor":
        return Cursor(self._duck, self._note)

    def begin(self, *, writes: bool) -> None:
        """Begins a transaction, of the one writer if it ``writes``."""
        if writes:
            self._stack.enter_context(self._database.writing())
        else:
            self._database.refresh()
        assert self._database.manifest is not None
        self._writes, self._tables = writes, dict(self._database.manifest.tables)
        self._duck.begin()
        self._is_open = True

    def commit(self) -> None:
        if not self._is_open:
            return
        for name in sorted(self._touched):
            self._write_kept(name)
        old = self._database.manifest
        assert old is not None
        published = self._published(old) if self._tables != old.tables else None
        self._duck.commit()
        self._is_open = False
        if published is not None:
            is_all = published.tables == self._tables  # or another host has changed others meanwhile: look again
            self._database.manifest = (published if is_all else old)._replace(tables=self._tables)
            with contextlib.suppress(OSError, DatabaseError):  # the change itself is done
                self._tidy(published)
        self._end()

    def rollback(self) -> None:
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(duckdb.TransactionException):  # an error has ended it
                self._duck.rollback()
        self._end()

    def close(self) -> None:
        self.rollback()
        self._duck.close()

    def create(self, tables: Iterable[sa.Table]) -> None:
        """Makes tables in a new folder."""
        if self._database.folder.read(MARK) is None:
            self._database.folder.put(MARK, f'{{"form": {FORM}}}\n'.encode())
        for table in tables:
            self._change(table.name, new_table(table))

    def replace_part(self, name: str, part: int, rows: "Iterable[pa.Table]") -> None:
        """Puts rows in the place of a part of a table."""
        kept = tuple(file for file in self._tables[name].files if file.part != part)
        self._set_files(name, (*kept, *self._written(name, part, rows)))

    def append(self, name: str, rows: "Iterable[pa.Table]") -> None:
        """Adds rows of one part to a table."""
        from extraction_assets.database.backends.parquet.rows import part_of

        found = part_of(self._tables[name].key[0], rows)
        if found is None:
            return
        self._set_files(name, (*self._tables[name].files, *self._written(name, *found)))
        if sum(file.part == found[0] for file in self._tables[name].files) > _MOST_FILES:
            self._rewrite(name, found[0], "true")

    def delete(self, name: str, condition: str) -> None:
        """Removes the rows of a table for which a condition holds: files without any stay as they are."""
        key = self._tables[name].key[0]
        counted = f"SELECT {key}, count(*) FILTER ({condition}), count(*) FROM {name} GROUP BY {key} ORDER BY {key}"
        for part, doomed, total in self._duck.execute(counted).fetchall():
            if doomed == total:
                self.replace_part(name, part, ())
            elif doomed:
                self._rewrite(name, part, f"({condition}) IS NOT TRUE")

    def sweep(self, *, remove: bool) -> int:
        """``Backend.sweep``, in a transaction that writes if it is to ``remove``."""
        manifest, folder = self._database.manifest, self._database.folder
        assert manifest is not None
        seconds = folder.orphan_seconds if remove else max(folder.orphan_seconds, _ORPHAN_SECONDS)
        return self._remove_unused(manifest, seconds, remove=remove)

    def _rewrite(self, name: str, part: int, condition: str) -> None:
        """One file of those rows of a part for which a condition holds, in the order of the key."""
        table = self._tables[name]
        chosen = f"SELECT * FROM {name} WHERE {table.key[0]} = {part} AND {condition} ORDER BY {', '.join(table.key)}"
        self.replace_part(name, part, self._read(chosen))

    def _write_kept(self, name: str) -> None:
        key = ", ".join(self._tables[name].key)
        self._set_files(name, self._written(name, None, self._read(f"SELECT * FROM {name} ORDER BY {key}")))

    def _read(self, query: str) -> "Iterator[pa.Table]":
        import pyarrow as pa

        for batch in self._duck.sql(query).to_arrow_reader(65_536):
            yield pa.Table.from_batches([batch])

    def _written(self, name: str, part: int | None, rows: "Iterable[pa.Table]") -> tuple[StoredFile, ...]:
        """The file of some rows; none of no rows."""
        from extraction_assets.database.backends.parquet.rows import write_rows

        file = f"{name}/{'' if part is None else f'{part}-'}{uuid.uuid4().hex}.parquet"
        with contextlib.suppress(_NoRows), self._database.folder.drafting(file) as path:
            count = write_rows(path, self._tables[name].columns, rows)
            if not count:
                raise _NoRows
            size = path.stat().st_size
            self._made.append(file)
            return (StoredFile(file, part, count, size),)
        return ()

    def _set_files(self, name: str, files: Sequence[StoredFile]) -> None:
        self._change(name, self._tables[name]._replace(files=tuple(files)))

    def _change(self, name: str, table: StoredTable) -> None:
        self._check_writes()
        is_new = name not in self._tables
        self._tables[name] = table
        if is_new or not table.is_kept:
            for statement in definition(name, table, self._database.folder.address):
                self._duck.execute(statement)

    def _note(self, statement: str) -> None:
        changed = _CHANGES.match(statement)
        if changed is not None:
            self._check_writes()
            self._touched.add(changed[1].lower())

    def _check_writes(self) -> None:
        """Raises ProgrammingError in a transaction that did not begin as one that writes: it has no lock."""
        if not self._writes:
            raise duckdb.ProgrammingError("results change in a write_transaction alone")

    def _published(self, old: Manifest) -> Manifest:
        """The manifest of this transaction once it is the newest. Raises DatabaseUnavailableError if another host has
        changed the same meanwhile."""
        changed = {name: table for name, table in self._tables.items() if old.tables.get(name) != table}
        while True:
            new, number = self._next(old, changed), max(self._database.folder.numbers(), default=0)
            # The next number may be free although others have changed much: old manifests are removed.
            if number <= old.number and self._create(new):
                return new
            newest = read_manifest(self._database.folder, self._database.folder.numbers()[-1])
            theirs = {name for name, table in newest.tables.items() if old.tables.get(name) != table}
            if theirs & set(changed) or not (theirs <= _WRITTEN_BY_HAND or set(changed) <= _WRITTEN_BY_HAND):
                raise DatabaseUnavailableError(
                    f"another host has changed {', '.join(sorted(theirs))} of the results in "
                    f"{self._database.folder.place} meanwhile; nothing of this change was stored"
                )
            old = newest

    def _create(self, new: Manifest) -> bool:
        """``ResultsFolder.create`` of a manifest. From here on its files may be somebody's, whatever interrupts this: a
        transaction that fails then leaves them, unless it is certain that nobody knows them."""
        folder, name = self._database.folder, manifest_name(new.number)
        made, self._made = self._made, []
        try:
            is_created = folder.create(name, new.text())
        except BaseException:
            if not folder.orphan_seconds and folder.read(name) is None:  # storage may be taking it at this moment
                self._made = made
            raise
        if not is_created:
            self._made = made
        return is_created

    def _next(self, old: Manifest, changed: dict[str, StoredTable]) -> Manifest:
        now = time.time()
        new = Manifest(old.number + 1, {**old.tables, **changed})
        staying = [one for one in old.retired if now - one.since < RETIRED_SECONDS]
        return new._replace(retired=(*staying, *(Retired(name, now) for name in sorted(old.names - new.names))))

    def _tidy(self, manifest: Manifest) -> None:
        """Writes the script, and removes what nobody reads any more."""
        folder = self._database.folder
        folder.put(SCRIPT, shell_script(manifest.tables, folder.address).encode())
        self._remove_unused(manifest, folder.orphan_seconds, remove=True)
        for number in folder.numbers()[:-_KEPT_MANIFESTS]:
            folder.remove(manifest_name(number))

    def _remove_unused(self, manifest: Manifest, orphan_seconds: float, *, remove: bool) -> int:
        folder, now, freed = self._database.folder, time.time(), 0
        waiting = {one.name for one in manifest.retired if now - one.since < RETIRED_SECONDS}
        gone = {one.name for one in manifest.retired} - waiting
        for name, found in folder.found().items():
            is_orphan = name not in manifest.names | waiting | gone and found.age >= orphan_seconds
            if name in gone or is_orphan:
                freed += found.bytes
                if remove:
                    folder.remove(name)
        return freed

    def _end(self) -> None:
        """After a transaction: removes files that it made in vain, and lets others write."""
        self._touched.clear()
        try:
            while self._made:
                self._database.folder.remove(self._made.pop())
        finally:
            self._stack.close()


class _NoRows(Exception):
    """There is nothing to store."""


class Cursor:
    """PEP 249's cursor. Rows are fetched at once: DuckDB has one result a connection, and callers ask several."""

    arraysize = 1

    def __init__(self, duck: duckdb.DuckDBPyConnection, note: Any) -> None:
        self._duck, self._note = duck, note
        self._rows: list[tuple[Any, ...]] = []
        self._next = 0
        self.description: Any = None
        self.rowcount = -1

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._note(statement)
        self._duck.execute(statement, list(parameters))
        self._take(statement)

    def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        self._note(statement)
        self._duck.executemany(statement, [list(one) for one in parameters])
        self._rows, self._next, self.description, self.rowcount = [], 0, None, len(parameters)

    def fetchone(self) -> tuple[Any, ...] | None:
        found = self.fetchmany(1)
        return found[0] if found else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        first = self._next
        self._next = min(len(self._rows), first + (size or self.arraysize))
        return self._rows[first : self._next]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.fetchmany(len(self._rows) or 1)

    def close(self) -> None:
        self._rows = []

    def setinputsizes(self, *sizes: Any) -> None:
        """Says nothing to DuckDB."""

    def setoutputsize(self, *sizes: Any) -> None:
        """Says nothing to DuckDB."""

    def _take(self, statement: str) -> None:
        self._rows, self._next = self._duck.fetchall(), 0
        if _CHANGES.match(statement):  # DuckDB answers with a row, the number of rows changed
            self.rowcount = int(self._rows[0][0]) if self._rows else -1
            self._rows, self.description = [], None
        else:
            self.rowcount, self.description = len(self._rows), self._duck.description
