"""A project of somebody's own, in which commands are typed."""

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from extraction_assets_tests.tiny import make_faithful_sae, make_language_model, make_texts

DEFINITIONS = """
from pathlib import Path

import dagster as dg
from extraction_assets import default_resources


@dg.definitions
def defs():
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(loaded, dg.Definitions(resources=default_resources(), executor=dg.in_process_executor))
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project ``workshop`` without extractions, in the working directory; model, SAEs and texts beside it."""
    package = tmp_path / "project" / "workshop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "definitions.py").write_text(dedent(DEFINITIONS))
    (package.parent / "pyproject.toml").write_text(
        '[project]\nname = "workshop"\nversion = "0"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        '[tool.dg.project]\nroot_module = "workshop"\ncode_location_target_module = "workshop.definitions"\n'
    )
    make_language_model(tmp_path / "things" / "model")
    make_texts(tmp_path / "things" / "texts")
    make_faithful_sae(tmp_path / "things" / "first-sae", hook="layers.0")
    make_faithful_sae(tmp_path / "things" / "second")
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv("EXTRACTION_PROGRESS", "log")
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.syspath_prepend(str(package.parent))
    yield package.parent
    for name in [name for name in sys.modules if name.split(".")[0] == "workshop"]:
        del sys.modules[name]
