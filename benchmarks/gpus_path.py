"""The chunks of an extraction on several GPUs of one host, as ``run NAME --gpus N`` makes them."""

import dataclasses
import datetime
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from benchmarks.dagster_path import homes, numbers, record_corpus, resources
from benchmarks.definitions import definitions
from benchmarks.inputs import EXTRACTION, SAE_NAME, extraction_settings, random_corpus, store_corpus
from benchmarks.lines import BOTH, Line
from benchmarks.measure import GB
from benchmarks.options import Options
from extraction_assets.cli.gpu_processes import make_on_several_gpus
from extraction_assets.cli.runner import Runner
from extraction_assets.dagster_instance.home import prepare_dagster_home
from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.execution.keys import sae_key
from extraction_assets.settings import ExtractionSettings

_KEPT = {"tables": "tables alone", "features": "tables and features"}


class GpusRan(NamedTuple):
    """The chunk runs of one command."""

    seconds: float
    """From the start of the first run to the end of the last, by Dagster's own record."""
    with_processes: float
    """The same, from before the processes start until all have ended."""
    chunks: list[int]
    """Of each run."""
    passes: list[float]
    """Seconds of each run in its chunks' passes."""
    first_event: float
    """Seconds from the first run's start until the first chunk is recorded."""
    tables: str = ""
    """Digest of all tables and their statistics."""
    bytes: int = 0
    """Of all files of chunks."""


def gpus_path(options: Options, folder: Path, count: int, *, compiled: bool) -> Iterator[Line]:
    """Lines of the chunks of ``count`` samples on each number of GPUs; the tables are to be the same, byte for byte.

    A machine compiles each kernel once: unless they are ``compiled``, one chunk is made before.
    """
    corpus = random_corpus(count, options)
    if not compiled and options.torch_device.type == "cuda":
        few = dataclasses.replace(options, chunk_size=min(count, 2 * options.batch_size))
        _in_new_home(few, folder, random_corpus(few.chunk_size, options), 1, keep_features=True)
    for kept in options.keep:
        run = partial(_in_new_home, options, folder, corpus, keep_features=kept == "features")
        yield from compared_lines("gpus", f"{count:,} samples, {_KEPT[kept]} stored", count, options.gpus, run)


def compared_lines(
    stage: str, what: str, count: int, numbers: Sequence[int], run: Callable[[int], GpusRan]
) -> Iterator[Line]:
    """Lines of ``count`` samples on each number of GPUs, which ``run`` takes, and of it beside the first number."""
    base: GpusRan | None = None
    for gpus in numbers:
        ran = run(gpus)
        name, rate = f"{what}, {gpus} GPU{'' if gpus == 1 else 's'}", count / ran.seconds
        yield Line(stage, name, rate, samples=count, seconds=ran.seconds, notes=_notes(ran), products=BOTH)
        if base is None:
            base = ran
            continue
        yield Line(stage, f"{name} against {numbers[0]}", base.seconds / ran.seconds, "times")
        equal = ran.tables == base.tables
        yield Line(stage, f"{name}: the same tables", notes={"equal": equal}, failed=not equal)


def _in_new_home(options: Options, folder: Path, corpus: TokenizedCorpus, gpus: int, *, keep_features: bool) -> GpusRan:
    with tempfile.TemporaryDirectory(prefix="home-", dir=folder, ignore_cleanup_errors=True) as home, homes(home):
        settings = extraction_settings(folder, options, len(corpus.token_ids), keep_features=keep_features)
        store_corpus(settings, corpus, Path(home))
        record_corpus(options, settings)
        ran = _run(gpus, options, settings)
        size = sum(path.stat().st_size for path in _files(Path(home)))
        return ran._replace(tables=tables_digest(Path(home)), bytes=size)


def _notes(ran: GpusRan) -> dict[str, Any]:
    return {
        "chunks of each run": ran.chunks,
        "seconds of each run in passes": ran.passes,
        "seconds until the first chunk is recorded": ran.first_event,
        "seconds with the start of the processes": ran.with_processes,
        "GB written": ran.bytes / GB,
    }


def _run(gpus: int, options: Options, settings: ExtractionSettings) -> GpusRan:
    """All chunks, in as many new processes; this one only hands them out."""
    prepare_dagster_home()
    device = "cpu" if options.torch_device.type == "cpu" else "auto"  # a GPU of its own for each
    load = partial(definitions, settings, {**resources(options), "device": device})
    with Runner(load(), settings, {}) as runner:
        began = time.time()
        make_on_several_gpus(runner, load, settings.chunk_keys, gpus, only_missing=True)
        ended = time.time()
    with dg.DagsterInstance.get() as instance:
        return runs_since(instance, settings, began, ended)


def runs_since(instance: dg.DagsterInstance, settings: ExtractionSettings, began: float, ended: float) -> GpusRan:
    """What the runs did that were made between two times, all of them of chunks."""
    since = datetime.datetime.fromtimestamp(began, datetime.UTC)
    runs = instance.get_run_records(dg.RunsFilter(created_after=since))
    starts, ends = [run.start_time or ended for run in runs], [run.end_time or ended for run in runs]
    chunks, passes = Counter[str](), Counter[str]()
    table = sae_key(settings, SAE_NAME, "top_k_table")
    events = [one for one in instance.fetch_materializations(table, limit=10_000).records if one.timestamp >= began]
    for event in events:
        chunks[event.run_id] += 1
        passes[event.run_id] += numbers(event)["seconds"]  # type: ignore[assignment]
    first = min(event.timestamp for event in events) - min(starts)
    return GpusRan(max(ends) - min(starts), ended - began, list(chunks.values()), list(passes.values()), first)


def _files(home: Path) -> list[Path]:
    return sorted(path for path in (home / EXTRACTION).rglob("*") if path.is_file())


def tables_digest(home: Path) -> str:
    """Of all tables and their statistics."""
    digest = hashlib.sha256()
    for path in _files(home):
        if "top_k_table" in path.parts:
            digest.update(path.relative_to(home).as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
