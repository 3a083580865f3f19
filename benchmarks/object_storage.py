"""A chunk store in object storage beside one on the local disk: how fast files are stored, read and merged.

    python -m benchmarks.object_storage [--url s3://bucket/folder] [--chunks 8] [--features 16384] [--json FILE]

Stores chunk tables and SAE features like those of a real extraction, as a run does (sealed, with a checksum), reads
every one of them back with all checks, and merges the tables. Without ``--url`` the storage is moto's S3 server in a
process of its own on 127.0.0.1, which keeps objects in memory: what it measures is this package, s3fs and that server,
and no network. What was stored is removed at the end.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.storing import Sizes, make_table
from extraction_assets.assets.examples.merging import merge_tables
from extraction_assets.catalog import SAE_FEATURES, TOP_K_TABLE
from extraction_assets.engine.shapes import FeatureRows, TopKTable
from extraction_assets.engine.statistics.registry import FeatureStatistics
from extraction_assets.stores.chunk_files import read_features, read_tables, write_features, write_table
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.opening import open_store

NAME, SAE, FINGERPRINT = "benchmark", "sae", "0" * 24
POSITIONS, FIRING = 128, 57
_RECORD: dict[str, Any] = {"fingerprint": FINGERPRINT, "numerics": {}, "checks": {}}
_WRITERS = 4


class Measured(NamedTuple):
    """One place's rates."""

    place: str
    megabytes: float
    store: float
    """MB/s, four files at once."""
    read: float
    """MB/s, one file after the other, every byte checked."""
    merge: float
    """Tables a second, read ahead and merged."""
    list_ms: float
    """To look up every chunk once, in a store that was just opened."""
    grown_mb: float
    """By how much storing has raised the peak memory of the process."""


def measure(place: str, home: Path, sizes: Sizes, samples: int) -> Measured:
    """Stores, reads, merges and removes."""
    store = open_store(place, home)
    tables = [make_table(sizes, number) for number in range(sizes.tables)]
    features = _features(sizes.features, samples)
    before = _peak_mb()
    seconds_store = _seconds(lambda: _store(store, tables, features, sizes.tables))
    grown = _peak_mb() - before
    store.close()
    again = open_store(place, home)
    seconds_list = _seconds(lambda: [_path(again, TOP_K_TABLE, number) for number in range(sizes.tables)])
    files = [file.path for asset in (TOP_K_TABLE, SAE_FEATURES) for file in again.chunk_files(NAME, asset, SAE)]
    megabytes = sum(again.files.length(path) for path in files) / 1e6
    read_mb = sum(again.files.length(_path(again, SAE_FEATURES, number)) for number in range(sizes.tables)) / 1e6
    seconds_read = _seconds(lambda: [_samples_in(again, number) for number in range(sizes.tables)])
    wanted = [(_path(again, TOP_K_TABLE, number), FINGERPRINT) for number in range(sizes.tables)]
    seconds_merge = _seconds(lambda: merge_tables(read_tables(wanted, again), sizes.top_k))
    again.files.remove(files)
    again.close()
    return Measured(
        store.place,
        megabytes,
        megabytes / seconds_store,
        read_mb / seconds_read,
        sizes.tables / seconds_merge,
        1000 * seconds_list,
        grown,
    )


def _features(num_features: int, samples: int) -> FeatureRows:
    """About 57 features a token, as an SAE of 16,384 has."""
    tokens, random = samples * POSITIONS, torch.Generator().manual_seed(0)
    ids = torch.randint(num_features, (tokens, FIRING), generator=random).sort(1).values.reshape(-1).int()
    pointers = torch.arange(tokens + 1) * FIRING
    values = torch.rand(len(ids), generator=random)
    return FeatureRows(pointers, ids, values, samples, POSITIONS, num_features)


def _store(
    store: ChunkStore, tables: Sequence[tuple[TopKTable, FeatureStatistics]], features: FeatureRows, chunks: int
) -> None:
    def one(number: int) -> None:
        with store.files.storing(_path(store, SAE_FEATURES, number)) as draft:
            write_features(draft, [features], _RECORD)
        with store.files.storing(_path(store, TOP_K_TABLE, number)) as draft:
            table, statistics = tables[number]
            write_table(draft, table, statistics, _RECORD)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(one, range(chunks)))


def _samples_in(store: ChunkStore, number: int) -> int:
    with store.reading(_path(store, SAE_FEATURES, number)) as copy:
        return read_features(copy, FINGERPRINT)[0].num_samples


def _path(store: ChunkStore, asset: Any, number: int) -> Path:
    return store.chunk_path(NAME, asset, SAE, f"{number:012}", FINGERPRINT)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _local_server(url: str | None) -> Iterator[str]:
    """The URL to measure; by default of a server on this machine."""
    if url is not None:
        yield url
        return
    from extraction_assets_tests.object_storage import s3_server

    with s3_server() as server:
        os.environ.update(server.environment)
        server.client().mkdir("benchmark")
        yield "s3://benchmark/store"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.object_storage", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--url")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--samples", type=int, default=1_000, help="of a chunk's SAE features")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = Sizes(arguments.chunks, arguments.features, top_k=100)
    with tempfile.TemporaryDirectory(prefix="benchmark-storage-") as folder, _local_server(arguments.url) as url:
        home, found = Path(folder), []
        for place in (str(home / "local"), url):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:  # whose memory is its alone
                found.append(process.submit(measure, place, home, sizes, arguments.samples).result())
    for one in found:
        print(
            f"{one.place:40} {one.megabytes:7.0f} MB  store {one.store:6.0f} MB/s  read {one.read:6.0f} MB/s  "
            f"merge {one.merge:5.1f} tables/s  list {one.list_ms:5.0f} ms  peak memory +{one.grown_mb:.0f} MB"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([one._asdict() for one in found], indent=1))


if __name__ == "__main__":
    main()
