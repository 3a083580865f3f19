"""A process that is killed in the midst of an export: the kernel lets go of its lock, and the next one goes on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets_tests.exports.written import json_lines, source_of, write

_KILLS_ITSELF = """
import os, signal, sys
from pathlib import Path
from extraction_assets.database.connect import opened_database
from extraction_assets.exports.formats import jsonl
from extraction_assets_tests.exports.written import source_of, write

url, folder = sys.argv[1:]
jsonl.FEATURES_IN_FILE, line = 2, jsonl.feature_line
def dying(source, feature):
    if feature.neuron_index == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return line(source, feature)
jsonl.feature_line = dying
with opened_database(url) as engine, engine.connect() as connection:
    write(source_of(connection), "jsonl", Path(folder))
"""


@pytest.mark.slow
def test_an_export_whose_process_was_killed_goes_on(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = small.engine.url.render_as_string(hide_password=False), tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", _KILLS_ITSELF, url, str(folder)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in folder.glob("batch*")] == ["batch-0.jsonl.gz"]
    assert list(folder.glob(".*.tmp"))
    monkeypatch.setattr("extraction_assets.exports.formats.jsonl.FEATURES_IN_FILE", 2)
    assert write(source_of(small), "jsonl", folder).written == 2
    lines = [line for number in range(3) for line in json_lines(folder / f"batch-{number}.jsonl.gz")]
    assert [line["neuron_index"] for line in lines] == list(range(6))
    assert not list(folder.glob(".*"))
