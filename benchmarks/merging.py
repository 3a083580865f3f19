"""A merge of many chunks of wide SAEs, simulated: tables are made as they are read, so that no disk has to hold them.

    python -m benchmarks.merging [--features 1048576] [--top-k 100] [--chunks 10 100 1000] [--examples 2] [--mib 2048]

Each simulated chunk has as many examples of every feature as ``--examples`` says, of random maxima and one firing each,
and full statistics. Seconds are those of the merge without the making of the tables, memory is what the process holds
that no file backs. ``--mib`` is what a merge may hold of examples, draws and statistics before it goes on by ranges of
features. The last lines say what follows for 10,000 chunks: of one merge that reads them all, and of the next one,
which reads tables of many chunks.
"""

import argparse
import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from extraction_assets.assets.examples import spilled
from extraction_assets.assets.examples.merging import Merged, expected_bytes, merge_tables
from extraction_assets.assets.examples.spilled import merge_by_ranges
from extraction_assets.engine.selection.deferred import of_features
from extraction_assets.engine.shapes import TopKTable
from extraction_assets.engine.statistics.accumulate import DTYPES
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics
from extraction_assets.planning.merge_order import TableToMerge, joined
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import FeaturePart, TableFile

CHUNK_SAMPLES, POSITIONS = 500, 128
FINALLY = 10_000


class Sizes(NamedTuple):
    features: int
    top_k: int
    examples: int


class Measured(NamedTuple):
    """A merge of some simulated tables."""

    seconds: float
    cpu_seconds: float
    ranges: int
    gigabytes: float
    """Held at most that no file backs, over what was held before."""
    merged: Merged


def simulated_table(sizes: Sizes, number: int, features: range | None = None) -> TopKTable:
    """The table of chunk ``number``, or a range of it: every feature has ``examples`` examples, of different samples.

    The random numbers are those of the range, so that making it takes no longer than its size.
    """
    wanted = range(sizes.features) if features is None else features
    random = torch.Generator().manual_seed(number * sizes.features + wanted.start)
    shape = len(wanted), sizes.examples
    maxima = torch.rand(shape, generator=random).add_(1e-3).sort(dim=1, descending=True).values.reshape(-1)
    first = torch.randint(CHUNK_SAMPLES, (len(wanted), 1), generator=random)
    samples = (first + torch.arange(sizes.examples)) % CHUNK_SAMPLES + number * CHUNK_SAMPLES
    count = len(wanted) * sizes.examples
    neurons = torch.arange(wanted.start, wanted.stop).repeat_interleave(sizes.examples)
    positions = (maxima * POSITIONS).long() % POSITIONS
    return TopKTable(neurons, samples.reshape(-1), maxima, torch.arange(count + 1), positions, maxima)


def simulated_statistics(features: int) -> FeatureStatistics:
    """Counts of one chunk, of all statistics."""
    tensors = {
        one.name: torch.ones((features, one.size) if one.size else features, dtype=DTYPES[one.dtype])
        for one in STATISTICS
    }
    return FeatureStatistics(**tensors, samples_seen=CHUNK_SAMPLES, tokens_seen=CHUNK_SAMPLES * POSITIONS)


class Merge:
    """Merges simulated tables, by ranges of features where they do not fit at once."""

    def __init__(self, sizes: Sizes, tables: Iterable[int | tuple[TopKTable, int]]) -> None:
        """Tables are numbers of simulated ones, or a table and what is added to its samples."""
        self._sizes, self._tables = sizes, list(tables)
        self._making, self._making_cpu = 0.0, 0.0
        self._ranges = 0

    def measured(self, folder: Path) -> Measured:
        """The merge; neither time nor memory is that of the tables, of which one is made at a time."""
        before = held_bytes()
        with _most_held() as most:
            began, began_cpu = time.perf_counter(), time.process_time()
            merged = merge_by_ranges(self._part, self._expected, self._sizes.features, folder)
            seconds = time.perf_counter() - began - self._making
            cpu_seconds = time.process_time() - began_cpu - self._making_cpu
        return Measured(seconds, cpu_seconds, self._ranges, (most[0] - before) / 2**30, merged)

    def _expected(self, part: FeaturePart) -> int:
        return expected_bytes(next(self._made(part.features)), self._sizes.top_k, len(self._tables))

    def _part(self, part: FeaturePart | None, most_bytes: int | None) -> Merged:
        files = self._made(None if part is None else part.features)
        merged = merge_tables(files, self._sizes.top_k, part=part, most_bytes=most_bytes)
        self._ranges += 1
        return merged

    def _made(self, features: range | None) -> Iterator[TableFile]:
        counts = simulated_statistics(self._sizes.features if features is None else len(features))
        for table in self._tables:
            began, began_cpu = time.perf_counter(), time.process_time()
            if isinstance(table, int):
                made = simulated_table(self._sizes, table, features)
            else:
                made = of_features(table[0], range(self._sizes.features) if features is None else features)
                made = made._replace(sample_index=made.sample_index + table[1])
            self._making += time.perf_counter() - began
            self._making_cpu += time.process_time() - began_cpu
            yield TableFile(made, counts, {})
            del made


def held_bytes() -> int:
    """Memory of this process that no file backs, on Linux; elsewhere 0."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def _most_held() -> Iterator[list[int]]:
    """The most that is held in the block, looked at fifty times a second."""
    most, ended = [held_bytes()], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            most[0] = max(most[0], held_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def report(sizes: Sizes, counts: list[int], folder: Path) -> Iterator[str]:
    """The lines of the table and what follows from it."""
    seconds: dict[int, float] = {}
    table = TopKTable(*(torch.empty(0) for _ in TopKTable._fields))
    for count in counts:
        found = Merge(sizes, range(count)).measured(folder)
        seconds[count], table = found.cpu_seconds, found.merged.table
        yield _line(f"{count} chunks", count, found)
        del found
    span = max(counts) * CHUNK_SAMPLES
    found = Merge(sizes, [(table, one * span) for one in range(4)]).measured(folder)
    yield _line("4 tables of many chunks", 4, found)
    yield from _extrapolated(seconds, found.cpu_seconds / 4)


def _line(what: str, tables: int, found: Measured) -> str:
    each = f"{found.cpu_seconds / tables:.2f}"
    figures = (f"{found.seconds:.1f}", f"{found.cpu_seconds:.1f}", each, found.ranges, f"{found.gigabytes:.1f} GB")
    return "| " + " | ".join(map(str, (what, *figures))) + " |"


def _extrapolated(seconds: dict[int, float], of_full: float) -> Iterator[str]:
    (few, short), (many, long) = min(seconds.items()), max(seconds.items())
    a_chunk = (long - short) / (many - few) if many > few else long / many
    once = max(0.0, short - few * a_chunk)
    chunks = [TableToMerge((Chunk(one, one, 1),), str(one)) for one in range(FINALLY)]
    read = joined(chunks)
    of_many = sum(len(one.chunks) > 1 for one in read)
    again = once + of_many * of_full + (len(read) - of_many) * a_chunk
    yield ""
    hours = f"{(once + a_chunk * FINALLY) / 3600:.2f} CPU hours for {FINALLY:,}"
    yield f"CPU seconds = {once:.1f} + {a_chunk:.2f} x chunks: {hours}."
    terms = f"{once:.1f} + {of_many} x {of_full:.2f} + {len(read) - of_many} x {a_chunk:.2f}"
    kinds = f"{of_many} tables of many chunks, {len(read) - of_many} of one"
    yield f"After one more chunk: {kinds}: {terms} = {again:.0f} CPU seconds."
    yield "To read files comes on top."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merging", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--features", type=int, default=1 << 20)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--chunks", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--examples", type=int, default=2, help="of each feature in each chunk")
    parser.add_argument("--mib", type=int, default=spilled.MERGE_BYTES >> 20, help="that a merge may hold")
    options = parser.parse_args()
    spilled.MERGE_BYTES = options.mib << 20
    sizes = Sizes(options.features, options.top_k, options.examples)
    said = (f"{name} {value}" for name, value in {**sizes._asdict(), "MiB": options.mib}.items())
    print(", ".join(itertools.chain(said, (f"cores {os.cpu_count()}", f"torch {torch.__version__}"))))
    print("\n| merge | seconds | CPU seconds | a table | ranges | memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="benchmark-merging-") as folder:
        for line in report(sizes, sorted(options.chunks), Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
