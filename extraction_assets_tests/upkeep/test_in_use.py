"""`run NAME` keeps `clean` and `delete` away for all of its command, and they keep it away while they remove."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extraction_assets.host import holders
from extraction_assets.host.processes import ProcessPlace, here
from extraction_assets.stores.in_use import InUseError, removing, running, runs_of
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

MARK = """
import sys
from pathlib import Path
from extraction_assets.stores import in_use
with getattr(in_use, sys.argv[1])(Path(sys.argv[2]), sys.argv[3] if sys.argv[1] == "running" else [sys.argv[3]]):
    print("there", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _another(kind: str, root: Path, extraction: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Another process that runs an extraction, or removes from it."""
    command = [sys.executable, "-c", MARK, kind, str(root), extraction]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("command", [("clean", "--yes"), ("delete", "tiny", "--yes")], ids=lambda words: words[0])
def test_what_removes_is_refused_during_a_run_command(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    tiny_folder: Path,
    command: tuple[str, ...],
) -> None:
    module, before = declare(monkeypatch, make_settings(tiny_folder, top_k_examples=3)), project.files()
    with _another("running", project.home, "tiny") as other:
        result = invoke(module, *command)
        assert result.exit_code == 1
        assert f"process {other.pid} on {here().host} runs tiny: wait for it or end it, or use --force" in result.output
        assert {name: data for name, data in project.files().items() if ".in_use" not in name} == before
        assert "nothing was removed" in succeed(module, *command[:-1], "--dry-run")
        succeed(module, *command, "--force")
    assert list((project.home / ".in_use").glob("*@remove@*")) == []


def test_another_extraction_may_be_cleaned(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings)
    with _another("running", project.home, "other"):
        assert "nothing to remove" in succeed(module, "clean", "--yes")


def test_a_killed_run_command_is_in_nobodys_way(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings)
    with _another("running", project.home, "tiny") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert len(list((project.home / ".in_use").iterdir())) == 1
        assert "removed tiny" in succeed(module, "delete", "tiny", "--yes")
    assert list((project.home / ".in_use").iterdir()) == []


def test_a_run_is_refused_while_files_are_removed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings)
    with _another("removing", project.home, "tiny") as other:
        result = invoke(module, "run", "tiny", "--missing")
    assert result.exit_code == 1
    assert f"process {other.pid} on {here().host} removes files of tiny at this moment" in result.output


def test_two_runs_of_one_extraction_may_go_on_at_once(tmp_path: Path) -> None:
    with _another("running", tmp_path, "tiny") as other, running(tmp_path, "tiny"):
        assert [holder.pid for holder in runs_of(tmp_path, "tiny")] == [other.pid]


@pytest.mark.slow
def test_nothing_merged_because_of_another_run_is_an_exit_code_of_its_own(
    home: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder))
    with _another("running", home, "tiny") as other:
        result = invoke(module, "run", "tiny", "--chunks", "0:1")
    assert result.exit_code == 3
    assert "nothing merged yet, 2 of 3 chunks missing or not recorded" in result.stdout
    assert f"but `run` in process {other.pid} on {here().host} works on tiny now: wait for it" in result.stdout
    assert invoke(module, "run", "tiny", "--chunks", "0:1").exit_code == 0  # as asked for, and nobody else is at work
    assert "Exit code 3" in invoke(module, "run", "--help").output


def _no_locks(*_: object) -> None:
    raise OSError(95, "Operation not supported")


def test_without_file_locks_a_process_of_this_place_counts_while_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", _no_locks)
    with _another("running", tmp_path, "tiny") as other:
        with pytest.raises(InUseError, match=f"process {other.pid}"), removing(tmp_path, ["tiny"]):
            pass
        other.kill()
        other.wait()
        with removing(tmp_path, ["tiny"]):
            pass


def test_without_file_locks_a_process_of_another_host_counts_until_its_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr(holders, "here", lambda: ProcessPlace("elsewhere", "another-boot", "1", "another-machine"))
        held = holders.hold(tmp_path / ".in_use", "tiny@run")
    monkeypatch.setattr(fcntl, "flock", _no_locks)
    with pytest.raises(InUseError, match=r"on elsewhere runs tiny: .* use --force"), removing(tmp_path, ["tiny"]):
        pass
    held.release()
    with removing(tmp_path, ["tiny"]):
        pass


def test_a_lock_tells_more_than_a_process_id_of_another_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr(holders, "here", lambda: here()._replace(namespace="1"))
        held = holders.hold(tmp_path / ".in_use", "tiny@run")
    assert [holder.pid for holder in runs_of(tmp_path, "tiny")] != []  # the id is this process's own, the place is not
    held.handle.close()  # as the kernel does when a process dies
    assert runs_of(tmp_path, "tiny") == []
