"""A merge of many chunks of wide SAEs, simulated: tables are made as they are read, so that no disk has to hold them.

    python -m benchmarks.merging [--features 1048576] [--top-k 100] [--chunks 10 100 1000] [--examples 2]

Each simulated chunk has as many examples of every feature as ``--examples`` says, of random maxima and one firing each,
and full statistics. Seconds are those of the merge without the making of the tables. The last lines say what follows
for 10,000 chunks: of one merge that reads them all, and of the next one, which reads tables of many chunks.
"""

import argparse
import itertools
import os
import platform
import resource
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from extraction_assets.assets.examples.merging import Merged, merge_tables
from extraction_assets.engine.shapes import TopKTable
from extraction_assets.engine.statistics.accumulate import DTYPES
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics
from extraction_assets.planning.merge_order import TableToMerge, joined
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import TableFile

CHUNK_SAMPLES, POSITIONS = 500, 128
FINALLY = 10_000


class Sizes(NamedTuple):
    features: int
    top_k: int
    examples: int


class Measured(NamedTuple):
    """A merge of some simulated tables."""

    seconds: float
    merged: Merged


def simulated_table(sizes: Sizes, number: int) -> TopKTable:
    """The table of chunk ``number``: every feature has ``examples`` examples, of different samples."""
    random = torch.Generator().manual_seed(number)
    shape = sizes.features, sizes.examples
    maxima = torch.rand(shape, generator=random).add_(1e-3).sort(dim=1, descending=True).values.reshape(-1)
    first = torch.randint(CHUNK_SAMPLES, (sizes.features, 1), generator=random)
    samples = (first + torch.arange(sizes.examples)) % CHUNK_SAMPLES + number * CHUNK_SAMPLES
    count = sizes.features * sizes.examples
    neurons = torch.arange(sizes.features).repeat_interleave(sizes.examples)
    positions = (maxima * POSITIONS).long() % POSITIONS
    return TopKTable(neurons, samples.reshape(-1), maxima, torch.arange(count + 1), positions, maxima)


def simulated_statistics(sizes: Sizes) -> FeatureStatistics:
    """Counts of one chunk, of all statistics."""
    tensors = {
        one.name: torch.ones((sizes.features, one.size) if one.size else sizes.features, dtype=DTYPES[one.dtype])
        for one in STATISTICS
    }
    return FeatureStatistics(**tensors, samples_seen=CHUNK_SAMPLES, tokens_seen=CHUNK_SAMPLES * POSITIONS)


def merged_of(tables: Iterator[TableFile], top_k: int) -> Measured:
    """Merges tables; the seconds leave out what making them took."""
    making = 0.0

    def timed() -> Iterator[TableFile]:
        nonlocal making
        while True:
            started = time.perf_counter()
            table = next(tables, None)
            making += time.perf_counter() - started
            if table is None:
                return
            yield table

    started = time.perf_counter()
    merged = merge_tables(timed(), top_k)
    return Measured(time.perf_counter() - started - making, merged)


def peak_gb() -> float:
    unit = 1024 if platform.system() == "Linux" else 1  # what ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def report(sizes: Sizes, counts: list[int]) -> Iterator[str]:
    """The lines of the table and what follows from it."""
    statistics = simulated_statistics(sizes)
    seconds: dict[int, float] = {}
    table = TopKTable(*(torch.empty(0) for _ in TopKTable._fields))
    for count in counts:
        tables = (TableFile(simulated_table(sizes, one), statistics, {}) for one in range(count))
        seconds[count], merged = merged_of(tables, sizes.top_k)
        table = merged.table
        del merged
        yield f"| {count} chunks | {seconds[count]:.1f} | {seconds[count] / count:.2f} | {peak_gb():.1f} GB |"
    full = TableFile(table, statistics, {})
    span = max(counts) * CHUNK_SAMPLES
    shifted = (full._replace(table=table._replace(sample_index=table.sample_index + one * span)) for one in range(4))
    of_full = merged_of(shifted, sizes.top_k).seconds / 4
    yield f"| 4 tables of many chunks | {of_full * 4:.1f} | {of_full:.2f} | {peak_gb():.1f} GB |"
    yield from _extrapolated(seconds, of_full)


def _extrapolated(seconds: dict[int, float], of_full: float) -> Iterator[str]:
    (few, short), (many, long) = min(seconds.items()), max(seconds.items())
    a_chunk = (long - short) / (many - few) if many > few else long / many
    once = max(0.0, short - few * a_chunk)
    chunks = [TableToMerge((Chunk(one, one, 1),), str(one)) for one in range(FINALLY)]
    read = joined(chunks)
    of_many = sum(len(one.chunks) > 1 for one in read)
    again = once + of_many * of_full + (len(read) - of_many) * a_chunk
    yield ""
    yield f"seconds = {once:.1f} + {a_chunk:.2f} x chunks: {(once + a_chunk * FINALLY) / 3600:.2f} h for {FINALLY:,}."
    terms = f"{once:.1f} + {of_many} x {of_full:.2f} + {len(read) - of_many} x {a_chunk:.2f}"
    kinds = f"{of_many} tables of many chunks, {len(read) - of_many} of one"
    yield f"After one more chunk: {kinds}: {terms} = {again:.0f} s."
    yield "To read files comes on top."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merging", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--features", type=int, default=1 << 20)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--chunks", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--examples", type=int, default=2, help="of each feature in each chunk")
    options = parser.parse_args()
    sizes = Sizes(options.features, options.top_k, options.examples)
    said = (f"{name} {value}" for name, value in sizes._asdict().items())
    print(", ".join(itertools.chain(said, (f"cores {os.cpu_count()}", f"torch {torch.__version__}"))))
    print("\n| merge | seconds | seconds a table | peak memory |\n| --- | ---: | ---: | ---: |")
    for line in report(sizes, sorted(options.chunks)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
