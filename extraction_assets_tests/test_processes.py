"""Processes that tests fork instead of starting them."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from extraction_assets_tests import processes

MODULE = """
import os, sys
print(os.getpid(), os.getcwd(), os.environ.get("EXTRACTION_TESTS_GIVEN"), sys.argv[1:], "torch" in sys.modules)
print("to the other stream", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("module", processes._PRELOAD)
def test_what_a_process_begins_with_is_there(module: str) -> None:
    assert find_spec(module) is not None  # multiprocessing says nothing of one that is not


def test_a_forked_module_has_folder_environment_arguments_and_streams_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "spoken.py").write_text(MODULE)
    done = processes.run_module("spoken", ["a", "b"], folder=tmp_path, environment={"EXTRACTION_TESTS_GIVEN": "yes"})
    number, rest = done.stdout.split(" ", 1)
    assert int(number) != os.getpid()
    assert rest == f"{tmp_path} yes ['a', 'b'] True\n"
    assert (done.returncode, done.stderr) == (3, "to the other stream\n")
    assert "spoken" not in sys.modules
