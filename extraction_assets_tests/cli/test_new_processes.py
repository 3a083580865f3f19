"""The kind of the processes of ``run NAME --gpus N``; ``test_gpu_processes.py`` has what each begins with."""

import sys

import pytest

from extraction_assets.cli import new_processes


def test_where_no_process_can_be_forked_safely_each_imports_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert new_processes.new_processes().get_start_method() == "spawn"
