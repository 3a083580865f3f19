"""Chunk tables to rows: how fast tables are merged and loaded, and in how much memory.

    python -m benchmarks.storing [--tables 20] [--features 16384] [--draws] [--readers] [--postgres URL] [--parquet]
        [--json FILE]

Makes chunk tables like those of a real extraction, merges them, and loads the result twice into a new SQLite file, into
PostgreSQL where a URL is given, and into Parquet files if asked for: first, and in the place of as many other rows. It
removes the rows that it loads; the next write drops the emptied tables of PostgreSQL once they are vacuumed. With
``--readers`` two processes read meanwhile, and it prints how long their looks took before the replacement and in it.
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from benchmarks.readers import reading, summary
from extraction_assets.assets.examples.merging import Merged, merge_tables
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.writing.feature_examples import ExtractionRow, replace_results
from extraction_assets.database.writing.remove import delete_results
from extraction_assets.database.writing.samples import CorpusSamples
from extraction_assets.engine.ordering import ascending_bits, bits_for, offsets_of, order_by
from extraction_assets.engine.selection.draws import merge_draws
from extraction_assets.engine.selection.intervals import OF_ALL
from extraction_assets.engine.selection.pairs import intervals_of
from extraction_assets.engine.shapes import DrawRules, Draws, TopKTable
from extraction_assets.engine.statistics.registry import FeatureStatistics
from extraction_assets.stores.chunk_files import read_table, read_tables, write_table

NAME = "benchmark of storing"
POSITIONS, VOCABULARY, CHUNK_SAMPLES = 128, 32_000, 5_000
RULES = DrawRules()
_ALONE_SECONDS = 3
_RECORD: dict[str, Any] = {"fingerprint": "benchmark", "numerics": {}, "checks": {}}


class Sizes(NamedTuple):
    tables: int
    features: int
    top_k: int
    draws: bool = False
    readers: bool = False


class Stage(NamedTuple):
    """One line of the report."""

    name: str
    seconds: float
    rate: float
    unit: str
    peak_gb: float
    """Peak memory of the process until the stage's end."""


def make_table(sizes: Sizes, number: int) -> tuple[TopKTable, FeatureStatistics]:
    """A chunk's table as a selection would give it: log-normal maxima, the strongest of as many as the feature has
    samples (log-normal too), at pseudo-random samples, one to three firings each, neighbours 20% weaker."""
    random = torch.Generator().manual_seed(number + 1)
    shape = sizes.features, sizes.top_k
    spread = torch.randn(sizes.features, generator=torch.Generator().manual_seed(0))  # the same in every chunk
    firing = (0.35 * CHUNK_SAMPLES * spread.exp()).clamp(20, 0.9 * CHUNK_SAMPLES).long()  # [F]
    gaps = torch.empty(shape, dtype=torch.float64).exponential_(generator=random)
    share = (gaps.cumsum(1) / firing.unsqueeze(1)).clamp(1e-12, 1 - 1e-12)  # [F, K]: uniform order statistics
    maxima = (-0.6 * torch.special.ndtri(share)).exp().float()
    start = torch.randint(CHUNK_SAMPLES, (sizes.features, 1), generator=random)
    step = 10 * torch.randint(CHUNK_SAMPLES // 10, (sizes.features, 1), generator=random) + 7
    samples = (start + step * torch.arange(sizes.top_k)) % CHUNK_SAMPLES  # distinct: 5,000 has no factor but 2 and 5
    kept = torch.arange(sizes.top_k) < firing.unsqueeze(1)
    neurons = torch.arange(sizes.features).unsqueeze(1).expand(shape)[kept]  # [E]
    maxima, samples = maxima[kept], samples[kept] + number * CHUNK_SAMPLES
    order = order_by(
        (neurons, bits_for(sizes.features)),
        (0x7FFFFFFF - ascending_bits(maxima), 31),
        (samples, bits_for(sizes.tables * CHUNK_SAMPLES)),
    )
    neurons, maxima, samples = neurons[order], maxima[order], samples[order]
    lengths = torch.randint(1, 4, (len(neurons),), generator=random)
    offsets = offsets_of(lengths)
    example = torch.repeat_interleave(torch.arange(len(neurons)), lengths)  # [M]
    place = torch.arange(len(example)) - offsets[example]
    first = torch.randint(POSITIONS, (len(neurons),), generator=random)
    table = TopKTable(
        neurons, samples, maxima, offsets, (first[example] + 37 * place) % POSITIONS, maxima[example] * 0.8**place
    )
    return table, _statistics(sizes, firing, maxima, neurons)


def make_draws(sizes: Sizes, table: TopKTable) -> Draws:
    """Of the samples of a table as many as are drawn at most, from all and from each interval."""
    of_all, intervals = torch.full_like(table.neuron_index, OF_ALL), intervals_of(table.max_activation)
    offsets = torch.cat([table.firing_offsets, table.firing_offsets[1:] + len(table.positions)])
    twice = TopKTable(*(torch.cat([column, column]) for column in table))._replace(firing_offsets=offsets)
    every = Draws(twice.neuron_index, torch.cat([of_all, intervals]), *twice[1:])
    return merge_draws([every], RULES, sizes.features)


def _statistics(sizes: Sizes, firing: torch.Tensor, maxima: torch.Tensor, neurons: torch.Tensor) -> FeatureStatistics:
    strongest = torch.zeros(sizes.features).scatter_reduce_(0, neurons, maxima, "amax")
    tokens = firing * 3 // 2
    histogram = torch.zeros(sizes.features, 40, dtype=torch.int64)
    histogram[:, 20] = tokens
    limbs = torch.zeros(sizes.features, 32, dtype=torch.int64)
    limbs[:, 15] = tokens << 30
    return FeatureStatistics(firing, tokens, strongest, limbs, histogram, CHUNK_SAMPLES, CHUNK_SAMPLES * POSITIONS)


def make_corpus(num_samples: int) -> CorpusSamples:
    """Samples of token ids with a long tail, 100 to a document."""
    random = np.random.default_rng(0)
    drawn = random.pareto(0.9, (num_samples, POSITIONS)) * 20
    return CorpusSamples(
        token_ids=np.minimum(drawn, VOCABULARY - 1).astype(np.int32),
        attention_mask=np.ones((num_samples, POSITIONS), dtype=bool),
        document_ids=[f"document {number}" for number in range(num_samples // 100 + 1)],
        document_numbers=np.arange(num_samples) // 100,
        first_tokens=np.arange(num_samples) % 100 * POSITIONS,
        start_sample=0,
        source=NAME,
        tokenizer="none",
        packing="documents",
        content_fingerprint=str,
    )


def display(ids: list[int]) -> list[str]:
    """Texts of one to seven letters, half of them after a space."""
    return [" " * (token_id % 2) + f"{token_id * 2654435761 % 2**32:x}"[: 1 + token_id % 7] for token_id in ids]


def measure(sizes: Sizes, folder: Path, urls: dict[str, str]) -> Iterator[Stage]:
    """The stages in order, each when it is done."""
    files = [(folder / f"{number:05d}.parquet", "benchmark") for number in range(sizes.tables)]
    writing = 0.0
    for number, (path, _) in enumerate(files):
        table, statistics = make_table(sizes, number)
        draws = make_draws(sizes, table) if sizes.draws else None
        started = time.perf_counter()
        write_table(path, table, statistics, _RECORD, draws)
        writing += time.perf_counter() - started
    yield _stage("write tables", writing, sizes.tables, "tables/s")
    yield _stage("read and check one table", _seconds(lambda: read_table(*files[0])), 1, "tables/s")
    merged: list[Merged] = []
    rules = RULES if sizes.draws else None
    seconds = _seconds(lambda: merged.append(merge_tables(read_tables(files), sizes.top_k, rules=rules)))
    yield _stage(f"merge {sizes.tables} tables, reading included", seconds, sizes.tables, "tables/s")
    corpus = make_corpus(sizes.tables * CHUNK_SAMPLES)
    for database, url in urls.items():
        yield from _load(database, url, sizes, merged[0], corpus, folder)


def _load(
    database: str, url: str, sizes: Sizes, merged: Merged, corpus: CorpusSamples, folder: Path
) -> Iterator[Stage]:
    engine = open_database(url)
    total = len(corpus.token_ids)
    draws = merged.draws
    other = merged.table._replace(sample_index=(merged.table.sample_index + total // 2) % total)
    try:
        for what, table in (("first load", merged.table), ("replacement", other)):

            def load(table: TopKTable = table, what: str = what) -> None:
                row = ExtractionRow(NAME, "sae", "none", "none", sizes.features, POSITIONS, sizes.top_k, {}, what)
                with write_transaction(engine) as connection:
                    replace_results(connection, row, corpus, table, merged.statistics, display, draws)
                engine.dispose()  # SQLite puts its write-ahead log into the file

            before = _bytes(folder)
            is_read = sizes.readers and what == "replacement"
            seconds = _seconds_with_readers(load, url) if is_read else _seconds(load)
            yield _stage(f"{database}, {what}", seconds, len(table.neuron_index), "examples/s")
            print(f"{database}, {what}: {(_bytes(folder) - before) / 1e6:,.0f} MB more on disk", file=sys.stderr)
    finally:
        with write_transaction(engine) as connection:
            delete_results(connection, NAME)
        engine.dispose()


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _seconds_with_readers(work: Callable[[], object], url: str) -> float:
    with reading(url) as looks:
        began = time.time()
        time.sleep(_ALONE_SECONDS)
        started = time.time()
        seconds = _seconds(work)
        ended = time.time()
    print(f"readers alone: {summary(looks, began, started)}", file=sys.stderr)
    print(f"readers during the replacement: {summary(looks, started, ended)}", file=sys.stderr, flush=True)
    return seconds


def _stage(name: str, seconds: float, count: int, unit: str) -> Stage:
    unit_kb = 1024 if platform.system() == "Linux" else 1  # what ru_maxrss counts in
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_kb / 2**30
    return Stage(name, seconds, count / seconds, unit, peak)


def conditions(sizes: Sizes) -> dict[str, Any]:
    """The conditions of the figures."""
    return {
        **sizes._asdict(),
        "samples": sizes.tables * CHUNK_SAMPLES,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyarrow": pa.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tables", type=int, default=20, help="chunks to merge")
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--draws", action="store_true", help="with the draws of full statistics")
    parser.add_argument("--readers", action="store_true", help="two processes read while rows are replaced")
    parser.add_argument("--postgres", metavar="URL", help="a database to load into as well, postgresql://…")
    parser.add_argument("--parquet", action="store_true", help="load into Parquet files as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file too")
    options = parser.parse_args()
    sizes = Sizes(options.tables, options.features, options.top_k, options.draws, options.readers)
    stated = conditions(sizes)
    print(", ".join(f"{name} {value}" for name, value in stated.items()))
    print("\n| stage | seconds | rate | peak memory |\n| --- | ---: | ---: | ---: |")
    stages: list[Stage] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-storing-") as folder:
        urls = {"SQLite": f"sqlite:///{folder}/results.sqlite"}
        if options.postgres:
            urls["PostgreSQL"] = options.postgres
        if options.parquet:
            urls["Parquet"] = f"parquet:///{folder}/results"
        for stage in measure(sizes, Path(folder), urls):
            print(
                f"| {stage.name} | {stage.seconds:.2f} | {stage.rate:,.1f} {stage.unit} | {stage.peak_gb:.2f} GB |",
                flush=True,
            )
            stages.append(stage)
    if options.json:
        figures = {"conditions": stated, "stages": [stage._asdict() for stage in stages]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
