"""A process that is killed in the midst of an export: the kernel lets go of its lock, and the next one goes on."""

import json
import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets.exports.formats import export_format
from extraction_assets.exports.output import MANIFEST
from extraction_assets_tests.exports.written import source_of, write
from extraction_assets_tests.processes import run_code

_KILLS_ITSELF = """
import contextlib, json, os, signal, sys
from pathlib import Path
from extraction_assets.database.connect import opened_database
from extraction_assets.exports import folders
from extraction_assets.exports.formats import export_format
from extraction_assets_tests.exports.written import source_of, write

url, folder, name, last, options = sys.argv[1:]
for size in ("FEATURES_IN_FILE", "FEATURES_IN_PART"):
    setattr(export_format(name), size, 2)
begun, durable_path = 0, folders.durable_path

@contextlib.contextmanager
def dying(path):
    global begun
    begun += 1
    with durable_path(path) as temporary:
        yield temporary
        if begun == int(last):
            os.truncate(temporary, temporary.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

folders.durable_path = dying
with opened_database(url) as engine, engine.connect() as connection:
    write(source_of(connection), name, Path(folder), **json.loads(options))
"""
_FORMATS: dict[str, tuple[int, dict[str, str]]] = {
    "jsonl": (4, {}),
    "parquet": (6, {}),
    "neuronpedia": (8, {"vectors": "no"}),
    "neuronpedia-upload": (3, {"features_in_file": "2"}),
    "circuit-tracer": (3, {"layer": "7"}),
    "sae-dashboard": (3, {}),
}
"""Which file is half written when the process dies, the manifest included, and the options."""


def files_in(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the manifest, which names the time."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("name", _FORMATS)
def test_an_export_whose_process_was_killed_goes_on_to_the_same_files(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    url, folder = small.engine.url.render_as_string(hide_password=False), tmp_path / "out"
    last, options = _FORMATS[name]
    done = run_code(_KILLS_ITSELF, url, str(folder), name, str(last), json.dumps(options))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(folder.rglob(".*.tmp"))
    for size in ("FEATURES_IN_FILE", "FEATURES_IN_PART"):
        monkeypatch.setattr(export_format(name), size, 2, raising=False)
    rest = write(source_of(small), name, folder, **options)
    whole = write(source_of(small), name, tmp_path / "whole", **options)
    assert files_in(folder) == files_in(whole.folder)
    assert rest.written < whole.written, "what was whole is not written again"
