"""Which runs are dead, in a Dagster home that several containers or hosts share: a process id alone says nothing."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData

from extraction_assets.dagster_instance import dead_runs as recovery
from extraction_assets.dagster_instance.dead_runs import HOST_TAG, PLACE_TAG, dead_runs, fail_dead_runs, note_host
from extraction_assets.host import holders
from extraction_assets.host.processes import ProcessPlace, here
from extraction_assets_tests.daemon_lab import wait_for
from extraction_assets_tests.processes import start_code

OTHER = ProcessPlace(here().host, here().boot or "boot", "4026530000", here().machine)  # a container of this host
ELSEWHERE = ProcessPlace("elsewhere", "another-boot", "4026531836", "another-machine")
GONE_PID = 2**22 - 7


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        yield instance
    recovery._release_all()


def _started(instance: dg.DagsterInstance, pid: int, **tags: str) -> str:
    """A run that has started, in process ``pid`` as its events have it."""
    run = instance.create_run_for_job(dg.GraphDefinition(name="job", node_defs=[]).to_job(), tags=tags)
    event = DagsterEvent(
        DagsterEventType.ENGINE_EVENT.value,
        "job",
        event_specific_data=EngineEventData({"pid": dg.MetadataValue.text(str(pid))}),
    )
    instance.report_dagster_event(event, run.run_id)
    start = DagsterEvent(DagsterEventType.RUN_START.value, "job")
    instance.report_dagster_event(start, run.run_id)
    return run.run_id


def _note(instance: dg.DagsterInstance, run_id: str, place: ProcessPlace) -> None:
    instance.add_run_tags(run_id, {HOST_TAG: f"{place.host} {run_id}", PLACE_TAG: json.dumps([*place, run_id])})


def _hold(
    instance: dg.DagsterInstance, run_id: str, place: ProcessPlace, monkeypatch: pytest.MonkeyPatch
) -> holders.Held:
    with monkeypatch.context() as there:
        there.setattr(holders, "here", lambda: place)
        return holders.hold(Path(instance.root_directory) / "extraction_assets" / "running", run_id)


def _dead(instance: dg.DagsterInstance) -> list[str]:
    return [run.run_id for run, _ in dead_runs(instance)]


@pytest.mark.parametrize("place", [OTHER, ELSEWHERE], ids=["container", "host"])
def test_a_living_run_of_another_place_is_not_declared_dead(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, place: ProcessPlace
) -> None:
    run_id = _started(instance, GONE_PID)  # no such process here
    _note(instance, run_id, place)
    assert _dead(instance) == []  # nothing is known of it
    held = _hold(instance, run_id, place, monkeypatch)
    assert _dead(instance) == []
    held.release()


@pytest.mark.parametrize("place", [OTHER, ELSEWHERE], ids=["container", "host"])
def test_a_dead_run_is_not_kept_alive_by_a_process_here_of_the_same_number(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, place: ProcessPlace
) -> None:
    run_id = _started(instance, os.getpid())
    _note(instance, run_id, place)
    held = _hold(instance, run_id, place, monkeypatch)
    assert _dead(instance) == []
    held.handle.close()  # as the kernel does when its process dies
    ((run, why),) = fail_dead_runs(instance)
    assert run.run_id == run_id
    assert why == f"its process {os.getpid()} on {place.host} is gone, killed or crashed"
    assert not held.path.exists()


def test_a_run_from_before_this_machine_was_booted_again_is_dead(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = here()._replace(machine="this-machine")
    monkeypatch.setattr("extraction_assets.host.processes._place", lambda _pid: own)
    before = own._replace(boot="the-boot-before")
    run_id, other = _started(instance, os.getpid()), _started(instance, os.getpid())
    _note(instance, run_id, before)
    _note(instance, other, before._replace(machine="a-namesake"))
    assert _dead(instance) == [run_id]


@pytest.mark.parametrize("tags", [{}, {HOST_TAG: "noted"}], ids=["no note", "a note of an earlier version"])
def test_old_notes_go_on_working(instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    dead, alive = _started(instance, GONE_PID, **tags), _started(instance, os.getpid(), **tags)
    assert _dead(instance) == [dead]
    assert alive not in _dead(instance)


def test_a_run_without_a_note_is_given_time_where_another_container_uses_the_home(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = _started(instance, GONE_PID)
    with monkeypatch.context() as there:
        there.setattr(recovery, "here", lambda: OTHER)
        fail_dead_runs(instance, lambda _run: False)  # its sensor looks, and so leaves a trace
    assert _dead(instance) == []
    monkeypatch.setattr(recovery, "SILENT_SECONDS", -1.0)
    assert _dead(instance) == [run_id]


@pytest.mark.slow
def test_a_run_that_a_process_of_this_place_noted_dies_with_it(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    code = (
        "import dagster as dg, sys, time\n"
        "from extraction_assets.dagster_instance.dead_runs import note_host\n"
        "with dg.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    note_host(instance, sys.argv[2])\n"
        "    print('noted', flush=True)\n"
        "    time.sleep(600)\n"
    )
    run_id = _started(instance, GONE_PID)
    process, output = start_code(code, instance.root_directory, run_id, streams=tmp_path), tmp_path / "stdout"
    try:
        wait_for("the note", lambda: output.exists() and output.read_text())
        assert [holder.pid for holder in recovery.runs_in_progress(Path(instance.root_directory))] == [process.pid]
    finally:
        process.kill()
        process.join()
    assert recovery.runs_in_progress(Path(instance.root_directory)) == []
    assert _dead(instance) == [run_id]


def test_a_process_holds_the_lock_of_the_run_that_it_works_on_alone(instance: dg.DagsterInstance) -> None:
    first, second = _started(instance, os.getpid()), _started(instance, os.getpid())
    for run_id in (first, first, second):
        note_host(instance, run_id)
    folder = Path(instance.root_directory) / "extraction_assets" / "running"
    assert [path.name.split("@")[0] for path in folder.iterdir()] == [second]


def test_two_runs_of_one_process_each_keep_their_lock(instance: dg.DagsterInstance) -> None:
    runs = [_started(instance, os.getpid()) for _ in range(2)]
    both = threading.Barrier(2)

    def work(run_id: str) -> None:
        note_host(instance, run_id)
        both.wait(timeout=60)  # so that neither thread ends, and its number is free again, before the other begins

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holding = recovery.runs_in_progress(Path(instance.root_directory))
    assert {holder.what for holder in holding} == set(runs)
