"""The whole path through Dagster: a corpus on disk, all chunks in one run, the merge, rows in the database."""

import contextlib
import dataclasses
import getpass
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import dagster as dg

from benchmarks.definitions import definitions
from benchmarks.inputs import SAE_NAME, extraction_settings, random_corpus, store_corpus
from benchmarks.lines import BOTH, Line
from benchmarks.measure import GB, Usage, metered
from benchmarks.options import Options
from extraction_assets.catalog import FEATURE_EXAMPLES, assets_after_chunks
from extraction_assets.cli.runner import Runner
from extraction_assets.dagster_instance.home import prepare_dagster_home
from extraction_assets.execution.keys import activations_key, sae_key
from extraction_assets.settings import ExtractionSettings

_VARIABLES = ("EXTRACTION_HOME", "DAGSTER_HOME", "EXTRACTION_DATABASE_URL", "EXTRACTION_DAGSTER_POSTGRES_URL")
_COMPILED = {
    "TRITON_CACHE_DIR": str(Path.home() / ".triton" / "cache"),
    "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"),
}
"""The caches of these libraries where nothing names others: a machine compiles each kernel once, in whatever home."""
_SPARE_DISK_BYTES = 2 * 10**9
PROCESSES: BaseContext = multiprocessing.get_context("spawn")

Result = TypeVar("Result")


def dagster_path(options: Options, folder: Path, count: int, *, keep_activations: bool) -> Iterator[Line]:
    """Lines of one extraction of ``count`` samples: all of it, then its parts."""
    stage = "dagster-activations" if keep_activations else "dagster"
    stored = "tables, features and activations" if keep_activations else "tables and features"
    name = f"Dagster, {count:,} samples, {stored} stored"
    needed, free = _disk_bytes(options, count, keep_activations), shutil.disk_usage(folder).free
    if needed > free:
        reason = f"needs {needed / GB:.1f} GB of disk, {free / GB:.1f} GB are free (--folder)"
        yield Line(stage, name, samples=count, notes={"not measured": reason})
        return
    with tempfile.TemporaryDirectory(prefix="home-", dir=folder, ignore_cleanup_errors=True) as home, homes(home):
        settings = extraction_settings(folder, options, count, keep_activations=keep_activations)
        store_corpus(settings, random_corpus(count, options), Path(home))
        yield from _lines(in_own_process(_run, options, settings), stage, name, count)


def in_own_process(
    work: Callable[[Options, ExtractionSettings], Result], options: Options, settings: ExtractionSettings
) -> Result:
    """Runs in a new process, as a real run does: nothing is compiled or cached, and memory is counted alone."""
    with ProcessPoolExecutor(1, PROCESSES, _take_on, (dict(os.environ),)) as process:
        return process.submit(work, options, settings).result()


def _take_on(environment: dict[str, str]) -> None:
    """A process that is forked from a server has the server's environment."""
    os.environ.clear()
    os.environ.update(environment)


def resources(options: Options) -> dict[str, Any]:
    """Configuration of the GPU resource."""
    return {
        "device": options.device,
        "batch_size": options.batch_size,
        "vectorization_batch_size": options.vectorization_batch_sizes[-1],
        "matmul_precision": options.matmul_precision,
        "compile_model": options.compile_model,
    }


def record_corpus(options: Options, settings: ExtractionSettings) -> None:
    """Reports the corpus, which is on disk already, to Dagster."""
    prepare_dagster_home()
    with Runner(definitions(settings, resources(options)), settings, {}) as runner:
        runner.materialize_corpus()


class _Ran(NamedTuple):
    """The seconds of an extraction's runs, and what they stored."""

    chunks: Usage
    merge: Usage
    after: Usage | None
    """Of the report and the relations; None if they were left out."""
    to_commit: float
    """Seconds from the start of the chunks' run to the event of the committed rows, by Dagster's own record."""
    seconds: dict[str, dict[str, float]]
    """Asset -> the seconds in its events' metadata, summed over chunks."""
    examples: int


def _run(options: Options, settings: ExtractionSettings) -> _Ran:
    """Everything that ``extraction-assets run NAME --missing`` does, or what it does up to the commit, metered."""
    prepare_dagster_home()
    with Runner(definitions(settings, resources(options)), settings, {}) as runner:
        runner.materialize_corpus()  # finds it there, and records that
        with metered(options.torch_device) as chunks:
            runner.materialize_chunks(settings.chunk_keys, only_missing=True)
        with metered(options.torch_device) as merge:
            runner.materialize_after_chunks(SAE_NAME, (FEATURE_EXAMPLES,))
        after = None
        if not options.to_commit:
            with metered(options.torch_device) as after:
                runner.materialize_after_chunks(SAE_NAME, [a for a in assets_after_chunks() if a != FEATURE_EXAMPLES])
    table, examples = (sae_key(settings, SAE_NAME, asset) for asset in ("top_k_table", "feature_examples"))
    keys = [activations_key(settings), sae_key(settings, SAE_NAME, "sae_features"), table, examples]
    with dg.DagsterInstance.get() as instance:
        records = instance.get_run_records()
        started = min(r.start_time or time.time() for r in records if table in (r.dagster_run.asset_selection or ()))
        committed = instance.fetch_materializations(examples, limit=1).records[0]
        seconds = {key.path[-1]: _summed_seconds(instance, key) for key in keys}
    return _Ran(chunks, merge, after, committed.timestamp - started, seconds, int(numbers(committed)["examples"]))


def _summed_seconds(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, float]:
    """Every number of seconds in the metadata of an asset's events, summed over its partitions."""
    sums: dict[str, float] = defaultdict(float)
    for record in instance.fetch_materializations(key, limit=10_000).records:
        for name, value in numbers(record).items():
            if name.split("_")[0] == "seconds":
                sums[name] += value
    return dict(sums)


def numbers(record: dg.EventLogRecord) -> dict[str, float]:
    event = record.asset_materialization
    values = {name: entry.value for name, entry in event.metadata.items()} if event else {}
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}


def _lines(ran: _Ran, stage: str, name: str, count: int) -> Iterator[Line]:
    def line(what: str, seconds: float, usage: Usage | None, **notes: Any) -> Line:
        return Line(stage, what, count / seconds, samples=count, seconds=seconds, usage=usage, notes=notes)

    by_asset = {asset: seconds for asset, seconds in ran.seconds.items() if seconds}
    notes = {"examples": ran.examples, "seconds_by_asset": by_asset}
    yield line(f"{name}: run start to commit", ran.to_commit, _together(ran.chunks, ran.merge), **notes)
    yield line(f"{name}: run of the chunks", ran.chunks.seconds, ran.chunks)
    passes = line(f"{name}: the chunks' passes alone", ran.seconds["top_k_table"]["seconds"], None)
    yield dataclasses.replace(passes, products=BOTH)
    yield line(f"{name}: run of the merge", ran.merge.seconds, ran.merge)
    if ran.after is not None:
        yield line(f"{name}: run of relations and report", ran.after.seconds, ran.after)


def _together(first: Usage, second: Usage) -> Usage:
    """The usage of two consecutive stages."""
    seconds = first.seconds + second.seconds

    def most(name: str) -> float | None:
        values = [value for value in (getattr(first, name), getattr(second, name)) if value is not None]
        return max(values, default=None)

    def mean(name: str) -> float | None:
        a, b = getattr(first, name), getattr(second, name)
        return None if a is None or b is None else (a * first.seconds + b * second.seconds) / seconds

    return Usage(
        seconds,
        most("peak_vram_gb"),
        most("peak_reserved_gb"),
        most("peak_ram_gb") or 0.0,
        mean("cpu_cores") or 0.0,
        mean("gpu_percent"),
        most("gpu_percent_max"),
    )


def _disk_bytes(options: Options, count: int, keep_activations: bool) -> int:
    """An upper estimate of the bytes of a run's files."""
    tokens = count * options.positions
    features = tokens * int(options.features_per_token * 1.5) * 8
    width = 2 if options.torch_device.type == "cuda" else 4
    return features + tokens * (options.width * width * keep_activations + 16) + _SPARE_DISK_BYTES


@contextlib.contextmanager
def homes(home: str) -> Iterator[None]:
    """Files, results and Dagster's history under ``home``, and nowhere else."""
    before = {name: os.environ.pop(name, None) for name in _VARIABLES}
    os.environ["EXTRACTION_HOME"] = home
    for name, where in _COMPILED.items():
        os.environ.setdefault(name, where)
    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
