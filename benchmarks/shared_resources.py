"""What processes on several GPUs of one host share, each part alone: so that a reader sees what bends."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import torch

from benchmarks import dagster_path
from benchmarks.inputs import extraction_settings, random_corpus, store_corpus
from benchmarks.lines import Line
from benchmarks.measure import GB
from benchmarks.options import Options
from extraction_assets.dagster_instance.home import prepare_dagster_home
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore

_SECONDS_OF_LIMIT = 0.2
"""Of the time limit, for each resource and number of processes."""
_PATIENCE_SECONDS = 120.0
"""How long a process waits for the others."""
_MIB = 2**20
_LAUNCHES = 1000
_LOOP = 100_000
_TOKENIZED_TOKENS = 200_000


class Place(NamedTuple):
    """Where and on what one of the processes works."""

    options: Options
    settings: ExtractionSettings
    home: Path
    number: int


def shared_resources(options: Options, folder: Path) -> Iterator[Line]:
    """Lines of each resource by one process, and by several at once, of which each wants as much as it can have."""
    with (
        tempfile.TemporaryDirectory(prefix="home-", dir=folder, ignore_cleanup_errors=True) as home,
        dagster_path.homes(home),
    ):
        count = min(max(options.samples), 4 * options.chunk_size)
        settings = extraction_settings(folder, options, count)
        store_corpus(settings, random_corpus(count, options), Path(home))
        prepare_dagster_home()
        alone: dict[str, float] = {}
        for processes in options.gpus:
            for name, rates in _at_once(options, settings, Path(home), processes).items():
                alone.setdefault(name, sum(rates) / len(rates))
                notes = {"of each": rates, "of each, to one alone": sum(rates) / len(rates) / alone[name]}
                what = f"{name}, {processes} process{'' if processes == 1 else 'es'}"
                yield Line("shared", what, sum(rates), _UNITS[name], notes=notes)
        yield _tokenizer(folder)


def _at_once(options: Options, settings: ExtractionSettings, home: Path, processes: int) -> dict[str, list[float]]:
    """Amount a second of each resource in each of the processes."""
    context: Any = dagster_path.PROCESSES
    barrier = context.Barrier(processes)
    started: list[tuple[Any, Any]] = []
    for number in range(processes):
        ours, theirs = context.Pipe()
        place = Place(options, settings, home, number)
        process = context.Process(target=_measure, args=(place, dict(os.environ), barrier, theirs))
        process.start()
        theirs.close()
        started.append((process, ours))
    found = [ours.recv() for _, ours in started]  # EOFError where a process was killed
    for process, _ in started:
        process.join()
    failed = [one for one in found if isinstance(one, str)]
    if failed:
        raise RuntimeError("; ".join(failed))
    return {name: [one[name] for one in found] for name in _WORK}


def _measure(place: Place, environment: dict[str, str], barrier: BarrierType, results: Any) -> None:
    """In one of the processes: every resource in turn, together with the others."""
    os.environ.clear()
    os.environ.update(environment)
    try:
        rates = {}
        for name, prepare in _WORK.items():
            work = prepare(place)
            work()
            barrier.wait(_PATIENCE_SECONDS)
            rates[name] = _rate(work, place.options.time_limit * _SECONDS_OF_LIMIT)
            barrier.wait(_PATIENCE_SECONDS)
        results.send(rates)
    except Exception as error:
        barrier.abort()
        results.send(f"{type(error).__name__}: {error}")


def _rate(work: Callable[[], float], limit: float) -> float:
    started, amount = time.perf_counter(), 0.0
    while True:
        amount += work()
        seconds = time.perf_counter() - started
        if seconds >= limit:
            return amount / seconds


def _disk(place: Place) -> Callable[[], float]:
    """Writes a file and waits until it is durable: GB."""
    size = max(1, place.options.copy_mib // 4)
    data, path = os.urandom(_MIB) * size, place.home / f"disk-{place.number}.bin"

    def write() -> float:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        return len(data) / GB

    return write


def _events(place: Place) -> Callable[[], float]:
    """Records a materialization of a chunk in Dagster's storage."""
    instance = dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"])
    key = dg.AssetKey(["shared", str(place.number)])

    def record() -> float:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="0", metadata={"seconds": 1.0}))
        return 1.0

    return record


def _corpus(place: Place) -> Callable[[], float]:
    """Reads the samples of a chunk, and checks them: samples."""
    plan = ExtractionPlan(place.settings, ChunkStore(place.home))
    chunks = place.settings.chunks

    def read() -> float:
        return float(sum(len(plan.samples(chunk).token_ids) for chunk in chunks))

    return read


def _launches(place: Place) -> Callable[[], float]:
    """Starts small kernels on the process's GPU, one after the other: what the host does for a pass."""
    on_gpu = place.options.torch_device.type == "cuda"
    device = torch.device("cuda", place.number) if on_gpu else torch.device("cpu")
    numbers = torch.zeros(32, device=device)

    def launch() -> float:
        for _ in range(_LAUNCHES):
            numbers.add_(1)
        if on_gpu:
            torch.cuda.synchronize(device)
        return float(_LAUNCHES)

    return launch


def _python(_place: Place) -> Callable[[], float]:
    """A loop of Python, which one core does: additions."""

    def loop() -> float:
        total = 0
        for number in range(_LOOP):
            total += number
        return float(_LOOP)

    return loop


_WORK: dict[str, Callable[[Place], Callable[[], float]]] = {
    "disk, written and synced": _disk,
    "Dagster's event log": _events,
    "the corpus, read by chunks": _corpus,
    "small kernels started": _launches,
    "a loop of Python": _python,
}

_UNITS = {
    "disk, written and synced": "GB/s",
    "Dagster's event log": "events/s",
    "the corpus, read by chunks": "samples/s",
    "small kernels started": "kernels/s",
    "a loop of Python": "additions/s",
}


def _tokenizer(folder: Path) -> Line:
    """The model's tokenizer over text, which one process does, once a corpus, whatever the number of GPUs."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    documents = [" ".join(f"w{1 + (17 * word + row) % 200}" for word in range(200)) for row in range(500)]
    tokens, started = 0, time.perf_counter()
    while tokens < _TOKENIZED_TOKENS:
        tokens += sum(map(len, tokenizer(documents)["input_ids"]))
    seconds = time.perf_counter() - started
    return Line("shared", "the tokenizer, once a corpus", tokens / seconds, "tokens/s", seconds=seconds)
