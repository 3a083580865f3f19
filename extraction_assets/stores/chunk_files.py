"""The files of one chunk: model activations, SAE features, top-k table with what belongs to it.

Every file carries a record (JSON) with its fingerprint and, as ``numerics``, what can change its last bits.
"""

import os
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from torch import Tensor

from extraction_assets.engine.selection.sparse import joined_pointers
from extraction_assets.engine.shapes import Draws, FeatureRows, SampledFeatures, TopKTable
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics, bytes_per_feature
from extraction_assets.stores.chunk_names import DRAWS_FILE, SAMPLED_FILE, STATISTICS_FILE, companion_path
from extraction_assets.stores.chunk_record import Record, look_at, read_checked_record, read_record, refusing
from extraction_assets.stores.chunk_shapes import (
    ROW_TENSORS,
    check_draws,
    check_table,
    checked_rows,
    checked_sampled,
    checked_statistics,
)
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.chunk_tensors import read_safetensors, write_safetensors
from extraction_assets.stores.sealed import DamagedFileError, damaged, set_aside, verify
from extraction_assets.stores.sparse_statistics import dense_statistics, sparse_statistics, statistics_of
from extraction_assets.stores.table_companions import as_damage_of, companions_of
from extraction_assets.stores.table_parquet import (
    read_draws_parquet,
    read_table_parquet,
    write_draws_parquet,
    write_table_parquet,
)

PREFETCHED_TABLES = 8
"""Tables that are read and checked ahead of their use, on as many cores."""

PREFETCHED_BYTES = 2**28
"""Their files, with those beside them, and the counts of their statistics hold at most so much, or they are one table:
three to four times that in memory."""


States = tuple[tuple[int, int, int, int] | None, ...]
"""Inode, size and times of the last change of some files."""


class FeaturePart(NamedTuple):
    """Consecutive features of an SAE."""

    features: range
    of: int
    """How many features there are in all."""

    @classmethod
    def of_all(cls, count: int) -> "FeaturePart":
        """All ``count`` features."""
        return cls(range(count), count)


class TableFile(NamedTuple):
    """A chunk's stored table with its statistics, its record and its draws; or what these say of a range of features,
    which keep their numbers, with a row of the statistics for each feature of the range."""

    table: TopKTable
    statistics: FeatureStatistics
    record: Record
    draws: Draws | None = None
    """None if nothing was drawn: ``statistics: basic``, or a file of an earlier version."""


def write_activations(path: Path, activations: dict[str, Tensor], record: Record) -> None:
    """Hook outputs {hook: [n, T, D]} in the model's dtype, as safetensors."""
    write_safetensors(path, activations, record)


def read_activations(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], Record]:
    """{hook: [n, T, D]}, memory-mapped, and their record, after checking the file."""
    tensors, record, _ = read_safetensors(path, fingerprint)
    return tensors, record


def write_features(path: Path, parts: Sequence[FeatureRows], record: Record) -> None:
    """Features at all non-padding positions in compressed rows, as safetensors: ``row_pointers`` int64 [n * T + 1],
    ``feature_ids`` int32 [Z], ``values`` float32 [Z].

    ``parts`` are consecutive samples, at least one part, all [*, T, F]. What is large is written from their memory.
    """
    samples = sum(part.num_samples for part in parts)
    tensors: dict[str, Tensor | Sequence[Tensor]] = {
        "row_pointers": joined_pointers(parts),
        "feature_ids": [part.feature_ids for part in parts],
        "values": [part.values for part in parts],
    }
    write_safetensors(path, tensors, {**record, "shape": _shape(parts[0]._replace(num_samples=samples))})


def read_features(path: Path, fingerprint: str) -> tuple[FeatureRows, Record]:
    """The stored features, memory-mapped, and their record, after checking the file."""
    tensors, record, _ = read_safetensors(path, fingerprint)
    return checked_rows(path, tensors, record.get("shape")), record


def write_table(
    path: Path,
    table: TopKTable,
    statistics: FeatureStatistics,
    record: Record,
    draws: Draws | None = None,
    sampled: SampledFeatures | None = None,
    before_rename: Callable[[], object] | None = None,
) -> None:
    """A top-k table as Parquet; its statistics, its draws and the sampled firings, if there are any, beside it. The
    table comes last, and after ``before_rename``, so if it exists, all do.

    The names of the files beside it hold their checksums, so that two runs on one chunk cannot mix their files.
    """
    counts = {"samples_seen": statistics.samples_seen, "tokens_seen": statistics.tokens_seen}
    num_features = len(statistics.sample_count)
    tensors = {one.name: tensor for one in STATISTICS if (tensor := getattr(statistics, one.name)) is not None}
    beside = {
        STATISTICS_FILE: _write_beside(
            path,
            STATISTICS_FILE,
            lambda draft: write_safetensors(draft, sparse_statistics(tensors), {**record, **counts}),
        )
    }
    if draws is not None:
        beside[DRAWS_FILE] = _write_beside(
            path, DRAWS_FILE, lambda draft: write_draws_parquet(draft, draws, {**record, "num_features": num_features})
        )
    if sampled is not None:
        rows = {"sample_index": sampled.sample_index, **_row_tensors(sampled.rows)}
        shaped = {**record, "shape": _shape(sampled.rows)}
        beside[SAMPLED_FILE] = _write_beside(path, SAMPLED_FILE, lambda draft: write_safetensors(draft, rows, shaped))
    record = {**record, **counts, **beside, "num_features": num_features}
    write_table_parquet(path, table, num_features, record, before_rename)


def _write_beside(table: Path, kind: str, write: Callable[[Path], str]) -> str:
    """Writes a file beside a table under the name of its checksum, which it returns."""
    draft = table.with_name(f".{table.name}.{uuid.uuid4().hex}.tmp")
    checksum = write(draft)
    path = companion_path(table, kind, checksum)
    if path.is_dir():  # a folder in its place
        set_aside(path)
    draft.rename(path)
    return checksum


def read_table(path: Path, fingerprint: str, features: range | None = None, *, verified: bool = False) -> TableFile:
    """The stored table of a chunk, its statistics, its draws and its record, after checking these files.

    Of a range of ``features`` only their row groups and counts are read, of a table that says how many features it has.
    Files that were checked a moment ago, for another range, may be taken as ``verified``.
    """
    record = look_at(path, fingerprint) if verified else read_checked_record(path, fingerprint)
    statistics = _read_statistics(path, record, features, verified=verified)
    latent_dim = len(statistics.sample_count) if features is None else int(record["num_features"])
    table = read_table_parquet(path, features)
    check_table(path, table, latent_dim)
    return TableFile(table, statistics, record, _read_draws(path, record, latent_dim, features, verified=verified))


def check_files(path: Path, fingerprint: str) -> None:
    """Reads every byte of a chunk file, and of the files beside a table. Raises DamagedFileError if bytes have changed,
    FileNotFoundError if the file was removed."""
    record = read_checked_record(path, fingerprint)
    if path.suffix == ".parquet":
        _read_statistics(path, record)
        for kind in (DRAWS_FILE, SAMPLED_FILE):
            _check_beside(path, record, kind)


def read_statistics(path: Path) -> tuple[FeatureStatistics, int]:
    """The statistics beside a table that has been checked, and the table's number of examples."""
    with refusing(path):
        examples = int(pq.read_metadata(path).num_rows)
    return _read_statistics(path, read_record(path)), examples


def read_sampled(table: Path) -> SampledFeatures | None:
    """The firings of the sampled samples of a chunk, from the file beside its table, which is checked; None if there is
    none: ``statistics: basic``, or a table of an earlier version.

    Raises DamagedFileError, which names the table; FileNotFoundError if the table does not exist.
    """
    record = read_record(table)
    path = _check_beside(table, record, SAMPLED_FILE)
    if path is None:
        return None
    with as_damage_of(table, path, SAMPLED_FILE):
        tensors, said, _ = read_safetensors(path, str(record["fingerprint"]))
        return checked_sampled(path, tensors, said.get("shape"))


def _read_statistics(
    table: Path, record: Record, features: range | None = None, *, verified: bool = False
) -> FeatureStatistics:
    """The statistics that a table names, or those of a range of features."""
    path, checksum = companions_of(table, record)[STATISTICS_FILE]
    with as_damage_of(table, path, STATISTICS_FILE):
        if features is not None:
            if not verified:
                _expect_named(path, verify(path), checksum)
                look_at(path, str(record["fingerprint"]))
            with refusing(path):
                part = statistics_of(path, features)
            return checked_statistics(path, part, {**record, "num_features": len(features)})
        tensors, _, found = read_safetensors(path, str(record["fingerprint"]))
        _expect_named(path, found, checksum)
        return checked_statistics(path, dense_statistics(path, tensors), record)


def _read_draws(
    table: Path, record: Record, num_features: int, features: range | None = None, *, verified: bool = False
) -> Draws | None:
    """The draws that a table names, if it names some, or those of a range of features."""
    path, _ = companions_of(table, record).get(DRAWS_FILE, (None, ""))
    if not verified:
        path = _check_beside(table, record, DRAWS_FILE)
    if path is None:
        return None
    with as_damage_of(table, path, DRAWS_FILE):
        draws = read_draws_parquet(path, features)
        check_draws(path, draws, num_features)
        return draws


def _check_beside(table: Path, record: Record, kind: str) -> Path | None:
    """Path of a file beside a table after checking every byte of it; None if the table names none of its kind."""
    named = companions_of(table, record).get(kind)
    if named is None:
        return None
    path, checksum = named
    with as_damage_of(table, path, kind):
        _expect_named(path, verify(path), checksum)
        look_at(path, str(record["fingerprint"]))
    return path


def _expect_named(path: Path, found: str, checksum: str) -> None:
    if found != checksum:
        raise damaged(path, "it is not the file that its table names")


def read_tables(
    files: Iterable[tuple[Path, str]],
    store: ChunkStore | None = None,
    part: FeaturePart | None = None,
    verified: dict[Path, States] | None = None,
) -> Generator[TableFile, None, None]:
    """The tables of files with their fingerprints, in their order; ``read_table`` in threads, a few tables ahead.

    The files are those of a store, or of this machine. With a ``part`` what they say of its features; files that are in
    ``verified`` in the state that they have were checked before, for another part, and the others are put there.

    If the caller keeps only the last one, that one is in memory and those that are read ahead: ``PREFETCHED_TABLES``,
    or fewer where they are large (``PREFETCHED_BYTES``).
    """
    pending: deque[Future[TableFile]] = deque()
    place = store or ChunkStore(Path())
    features, share = (None, 1.0) if part is None else (part.features, len(part.features) / part.of)
    checked = dict[Path, States]() if verified is None else verified

    def read(path: Path, fingerprint: str) -> TableFile:
        with place.reading(path, STATISTICS_FILE, DRAWS_FILE) as copy:
            states = _states(copy)  # before it is read
            found = read_table(copy, fingerprint, features, verified=checked.get(path) == states)
            checked[path] = states
            return found

    most = 1
    with ThreadPoolExecutor(min(PREFETCHED_TABLES, os.cpu_count() or 1), thread_name_prefix="table reader") as pool:
        try:
            for path, fingerprint in files:
                while len(pending) >= most:
                    yield pending.popleft().result()
                size = int(share * _bytes_of(path, place))
                most = min(PREFETCHED_TABLES, max(1, PREFETCHED_BYTES // max(1, size)))
                pending.append(pool.submit(read, path, fingerprint))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _states(table: Path) -> States:
    """Of a table and the files beside it: they change whenever somebody writes to one, or puts another in its place."""
    files = (table, *(path for path, _ in companions_of(table, read_record(table)).values()))
    said = [path.stat() if path.is_file() else None for path in files]  # reading it says what is not there
    return tuple(one and (one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in said)


def _bytes_of(table: Path, store: ChunkStore) -> int:
    """Of a table and the files beside it, and of its statistics once their zeros are there; 0 if it cannot be read,
    which reading it will say."""
    try:
        record = store.record(table)
        beside = [path for path, _ in companions_of(table, record).values()]
        features = int(record.get("num_features", 0))
        return sum(store.files.length(path) for path in (table, *beside)) + features * bytes_per_feature()
    except (OSError, DamagedFileError, TypeError, ValueError):
        return 0


def _row_tensors(rows: FeatureRows) -> dict[str, Tensor]:
    return {name: getattr(rows, name) for name in ROW_TENSORS}


def _shape(rows: FeatureRows) -> list[int]:
    """[n, T, F]"""
    return [rows.num_samples, rows.num_positions, rows.num_features]
