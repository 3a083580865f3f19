"""Processes that share chunks: the CPU plays the GPU of each."""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from extraction_assets.assets.chunks.pending import Pending
from extraction_assets.cli import gpu_processes
from extraction_assets.cli.gpu_processes import make_on_several_gpus
from extraction_assets.cli.runner import RunFailed, Runner
from extraction_assets.dagster_instance.home import prepare_dagster_home
from extraction_assets.execution.keys import sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests import command
from extraction_assets_tests.cli import several_processes
from extraction_assets_tests.daemon_lab import wait_for
from extraction_assets_tests.processes import ROOT, Anew, forks, run_module
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

CHUNKS = 8


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> ExtractionSettings:
    corpus = {"source": str(tiny_folder / "texts"), "max_length": 8}
    return make_settings(tiny_folder, corpus=corpus, chunk_size=3, evaluation_samples=3 * CHUNKS)


@pytest.fixture(scope="module")
def alone(settings: ExtractionSettings, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(settings, tmp_path_factory.mktemp("alone")).merged()


@pytest.fixture
def runner(settings: ExtractionSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setenv("EXTRACTION_PROGRESS", "log")
    monkeypatch.setattr(gpu_processes, "PROCESSES", forks())
    prepare_dagster_home()
    with Runner(several_processes.definitions(settings), settings, {"device": "cpu"}) as runner:
        runner.materialize_corpus()
        yield runner


def _make(runner: Runner, load: Callable[[], Any] | None = None, count: int = 2, *, only_missing: bool = False) -> None:
    load = load or partial(several_processes.definitions, runner.settings)
    make_on_several_gpus(runner, load, runner.settings.chunk_keys, count, only_missing=only_missing)


def _instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.get()


def _pending(settings: ExtractionSettings, home: Path) -> list[str]:
    with _instance() as instance:
        return Pending(ExtractionPlan(settings, ChunkStore(home)), instance).keys


def _makers(settings: ExtractionSettings) -> Counter[str]:
    """How many chunks each run has made."""
    with _instance() as instance:
        table = sae_key(settings, "topk", "top_k_table")
        return Counter(record.run_id for record in instance.fetch_materializations(table, limit=100).records)


def _chunk_files(project: Project) -> dict[str, bytes]:
    return {path: data for path, data in project.files("tiny/**/*").items() if "feature_report" not in path}


def _statuses() -> set[dg.DagsterRunStatus]:
    with _instance() as instance:
        return {run.status for run in instance.get_runs()}


def test_rows_and_files_are_those_of_one_process(runner: Runner, alone: Project, home: Path) -> None:
    _make(runner, count=3)
    for sae in runner.settings.saes:
        runner.merge(sae)
    ours = Project(runner.settings, home)
    assert _chunk_files(ours) == _chunk_files(alone) != {}
    query = "SELECT * FROM feature_activations ORDER BY extraction_id, neuron_index, rank"
    assert ours.rows(query) == alone.rows(query) != []
    assert _pending(runner.settings, home) == []


def test_every_process_makes_one_run(runner: Runner) -> None:
    _make(runner, count=2)
    made = _makers(runner.settings)
    assert (len(made), made.total()) == (2, CHUNKS)


def test_a_slow_process_makes_fewer_chunks(runner: Runner, tmp_path: Path) -> None:
    _make(runner, several_processes.in_trouble(several_processes.is_slow, tmp_path, runner.settings))
    assert min(_makers(runner.settings).values()) <= 2


def test_chunks_of_a_killed_process_are_made_by_the_other(
    runner: Runner, tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _make(runner, several_processes.in_trouble(several_processes.is_killed, tmp_path, runner.settings))
    assert _pending(runner.settings, home) == []
    assert "was killed by SIGKILL" in caplog.text
    assert _statuses() == {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}  # none stays STARTED


def test_a_failed_run_leaves_its_chunk_and_the_other_makes_the_rest(runner: Runner, tmp_path: Path, home: Path) -> None:
    with pytest.raises(RunFailed, match=r"no second chunk today \(1 of 8 chunks were not made: "):
        _make(runner, several_processes.in_trouble(several_processes.fails, tmp_path, runner.settings))
    assert len(_pending(runner.settings, home)) == 1


def test_what_all_processes_fail_over_is_said_once(runner: Runner, home: Path) -> None:
    broken = Path(runner.settings.saes["relu"].path or "") / "sae_weights.safetensors"
    aside = broken.rename(broken.with_suffix(".aside"))
    try:
        with pytest.raises(RunFailed) as caught:
            _make(runner)
    finally:
        aside.rename(broken)
    assert str(caught.value).count("sae_weights") <= 1
    assert str(caught.value).endswith("(8 of 8 chunks were not made: 000000000000, 000000000003, 000000000006)")


def test_ctrl_c_ends_all_and_what_is_durable_is_recorded(runner: Runner, tmp_path: Path, home: Path) -> None:
    load = several_processes.in_trouble(several_processes.is_slow, tmp_path, runner.settings)
    table = sae_key(runner.settings, "topk", "top_k_table")

    def interrupt() -> None:
        wait_for("a chunk", lambda: list(home.glob("tiny/topk/top_k_table/**/*.parquet")), 100)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        _make(runner, load)
    thread.join()
    assert multiprocessing.active_children() == []
    assert dg.DagsterRunStatus.STARTED not in _statuses()
    plan = ExtractionPlan(runner.settings, ChunkStore(home))
    with _instance() as instance:
        assert instance.get_materialized_partitions(table) == set(runner.settings.chunk_keys) - set(
            plan.missing_chunks()
        )


def test_only_missing_chunks_are_made_and_recorded_ones_kept(runner: Runner, alone: Project, home: Path) -> None:
    runner.materialize_chunks(runner.settings.chunk_keys[2:4])
    before = {path: path.stat().st_mtime_ns for path in home.glob("tiny/topk/top_k_table/**/*.parquet")}
    _make(runner, only_missing=True)
    assert before
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert _chunk_files(Project(runner.settings, home)) == _chunk_files(alone)


def test_the_command_runs_and_merges(
    settings: ExtractionSettings, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labx.py").write_text(several_processes.MODULE.format(settings=settings.model_dump_json()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu_processes, "PROCESSES", forks())
    command.declare(monkeypatch)
    printed = command.succeed("labx", "run", "tiny", "--gpus", "2", "--device", "cpu")
    assert "8 chunks, 000000000000 to 000000000021, in 2 processes" in printed
    assert "8 chunks, 2 merges: " in printed
    assert Project(settings, home).rows("SELECT count(*) FROM feature_activations")[0][0] > 0


def test_a_process_that_has_imported_nothing_of_the_package_finds_what_it_needs(
    runner: Runner, alone: Project, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_processes, "PROCESSES", Anew())  # as where no process can be forked safely
    _make(runner, count=1)
    assert _chunk_files(Project(runner.settings, home)) == _chunk_files(alone)


_FOUND = """
import sys, torch
from multiprocessing import current_process
from pathlib import Path

there = [name in sys.modules for name in ("dagster", "transformers.modeling_utils")]
with Path(__file__).with_name("found").open("a") as found:
    cuda = torch.cuda.is_initialized(), torch.cuda._is_in_bad_fork()
    print(f"{current_process().name}:", *there, *cuda, file=found)
"""
"""Whether a process has begun with what all need, and without CUDA."""


def test_the_command_shares_chunks_among_processes_as_users_have_them(
    runner: Runner, alone: Project, home: Path, tmp_path: Path
) -> None:
    """The processes are those of ``cli/preloaded.py``, and would say so were they forks of one that had started CUDA;
    the command alone begins with everything imported."""
    module = _FOUND + several_processes.MODULE.format(settings=runner.settings.model_dump_json())
    (tmp_path / "labx.py").write_text(module)
    words = ["--module", "labx", "run", "tiny", "--gpus", "2", "--device", "cpu"]
    words += ["--chunks", f":{CHUNKS // 2}"]  # and so without the merge, which one process makes
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = run_module("extraction_assets.cli", words, folder=tmp_path, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    made, every = _chunk_files(Project(runner.settings, home)), _chunk_files(alone)
    half = {*runner.settings.chunk_keys[: CHUNKS // 2], "corpus.json"}
    assert made == {path: data for path, data in every.items() if Path(path).name.partition("-")[0] in half}
    assert len(made) > 1
    found = sorted((tmp_path / "found").read_text().splitlines())
    assert [line for line in found if line.startswith("gpu")] == [f"gpu {n}: True True False False" for n in (0, 1)]
