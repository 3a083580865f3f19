"""Processes that begin with everything imported and nothing used."""

import subprocess
import sys

import pytest

from extraction_assets.cli import new_processes
from extraction_assets_tests.processes import ROOT

IMPORTED = "(name in sys.modules for name in ('dagster', 'transformers.modeling_utils'))"


def printed(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process imports everything itself")
def test_a_new_process_has_imported_what_all_need_and_nothing_has_started_cuda() -> None:
    """A fork of a process that had started it would say so."""
    child = f"import sys, torch; print(*{IMPORTED}, torch.cuda.is_initialized(), torch.cuda._is_in_bad_fork())"
    program = (
        "from extraction_assets.cli.new_processes import *; kind = new_processes(); begin_preloading(kind);"
        f'wait_until_preloaded(kind); one = kind.Process(target=exec, args=("""{child}""",)); one.start(); one.join()'
    )
    assert printed(program) == ["True", "True", "False", "False"]


def test_where_no_process_can_be_forked_safely_each_imports_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert new_processes.new_processes().get_start_method() == "spawn"
