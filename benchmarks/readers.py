"""Readers beside a load: processes that look up features and samples, and how long each look takes.

``python -m benchmarks.readers URL STOP OUT`` is one reader: it looks until the file STOP exists, and writes to OUT. On
PostgreSQL a look that waits 10 ms for a lock is an error, with which the reader ends.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.read_only import read_database
from extraction_assets.database.views import feature_activations, sample_features

READERS, PAUSE_SECONDS, START_SECONDS = 2, 0.02, 60


class Look(NamedTuple):
    """One reader's look at a result: its row, a feature's examples, a sample's features."""

    at: float
    """When it ended, as ``time.time()``."""
    seconds: float


@contextlib.contextmanager
def reading(url: str, readers: int = READERS) -> Iterator[list[Look]]:
    """Readers in processes of their own while the block runs; the list holds all looks once it has ended.

    Raises RuntimeError if a reader failed.
    """
    looks: list[Look] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-readers-") as name:
        folder = Path(name)
        stop, files = folder / "stop", [folder / f"{number}.json" for number in range(readers)]
        command = [sys.executable, "-m", "benchmarks.readers", url, str(stop)]
        processes = [subprocess.Popen([*command, str(file)]) for file in files]
        try:
            _wait_for_start(files)
            yield looks
        finally:
            stop.touch()
            failed = [process.wait(timeout=START_SECONDS) for process in processes]
        if any(failed):
            raise RuntimeError("a reader beside the load failed: its error stands above")
        for file in files:
            looks += [Look(*look) for look in json.loads(file.read_text())]


def summary(looks: list[Look], start: float, stop: float) -> str:
    """How long the looks took that ended between two moments."""
    times = sorted(1000 * look.seconds for look in looks if start <= look.at <= stop)
    if not times:
        return "no look ended"
    middle, late = statistics.median(times), times[min(len(times) - 1, len(times) * 99 // 100)]
    return f"{len(times)} looks, median {middle:.1f}, 99 in 100 {late:.1f}, longest {times[-1]:.1f} ms"


def _wait_for_start(files: list[Path]) -> None:
    """Each reader makes its file, still empty, before its first look."""
    end = time.monotonic() + START_SECONDS
    while not all(file.exists() for file in files):
        if time.monotonic() > end:
            raise RuntimeError("the readers do not start")
        time.sleep(PAUSE_SECONDS)


def _look(connection: sa.Connection, number: int) -> None:
    row = connection.execute(sa.text("SELECT id, latent_dim, sample_count FROM extractions")).first()
    if row is None:
        return
    of_feature, of_sample = feature_activations.c, sample_features.c
    feature = (of_feature.extraction_id == row.id, of_feature.neuron_index == number % row.latent_dim)
    sample = (of_sample.extraction_id == row.id, of_sample.sample_index == number % row.sample_count)
    connection.execute(sa.select(of_feature.max_activation, of_feature.positions).where(*feature)).all()
    connection.execute(sa.select(of_sample.neuron_index, of_sample.max_activation).where(*sample)).all()


def main(url: str, stop: str, out: str) -> None:
    """One reader."""
    looks: list[Look] = []
    with read_database(url) as engine:
        if engine.dialect.name == "postgresql":
            sa.event.listen(engine, "connect", _refuse_to_wait)
        Path(out).touch()
        while not os.path.exists(stop):
            started = time.perf_counter()
            with engine.connect() as connection:
                _look(connection, 7 * len(looks))
            looks.append(Look(time.time(), time.perf_counter() - started))
            time.sleep(PAUSE_SECONDS)
    Path(out).write_text(json.dumps(looks))


def _refuse_to_wait(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '10ms'")


if __name__ == "__main__":
    main(*sys.argv[1:])
