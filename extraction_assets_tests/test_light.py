"""What is declared, listed and shown loads no torch: what takes seconds to import, the step imports that needs it.

One process takes all steps, and says after each which heavy packages it has loaded.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from extraction_assets.dagster_instance.home import make_dagster_home
from extraction_assets_tests.processes import ROOT
from extraction_assets_tests.project import Project

pytestmark = pytest.mark.slow

HEAVY = ("datasets", "pandas", "scipy", "sentencepiece", "tokenizers", "torch", "transformers")

NOT_FOR_READING = ("alembic", "pyarrow")
"""What only writing needs, files of chunks and corpora, and Dagster's history: neither ``list`` nor ``show``."""

LIGHT_ROOMS = (
    "automation",
    "browser",
    "catalog",
    "component",
    "dagster_instance",
    "database.connect",
    "database.queries",
    "definitions",
    "defs_yaml",
    "engine.corpora",
    "engine.file_boundary",
    "engine.findings",
    "engine.saes.formats",
    "engine.saes.named",
    "engine.saes.published",
    "engine.shapes",
    "execution.lineage",
    "execution.links",
    "host",
    "planning",
    "resources.resolve",
    "settings",
    "upkeep",
)
"""Every module of these loads none of them. In other rooms it is the module that says so: ``assets/*/asset.py`` and
``resources/gpu.py`` declare, and what computes stands beside them."""

DEFINITIONS = """
import dagster as dg
from extraction_assets import default_resources
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings

settings = ExtractionSettings.model_validate_json({settings!r})
defs = dg.Definitions.merge(build_definitions(settings), dg.Definitions(resources=default_resources()))
"""


_PROGRAM = f"""
import json, sys
found = {{}}
for name, code in json.loads(sys.argv[1]).items():
    exec(code, {{"__name__": name}})
    found[name] = [package for package in {HEAVY + NOT_FOR_READING!r} if package in sys.modules]
print(json.dumps(found))
"""
"""Each step says what is loaded after it: the first that names a package has loaded it."""

_BROWSER = """
import os, sys
home = os.environ["EXTRACTION_HOME"]
os.environ["EXTRACTION_HOME"] += " without results"
from extraction_assets.browser import app, server
from extraction_assets.cli import browse
databases = browse._databases(browse.DEFAULT_MODULE)
application = browse.make_app(*databases, (), False, None)
from starlette.testclient import TestClient
assert "Nothing is merged yet" in TestClient(application, base_url="http://localhost").get("/").text
assert "dagster" not in sys.modules
os.environ["EXTRACTION_HOME"] = home
"""

_CODE_LOCATION = """
import extraction_assets.definitions
repository = extraction_assets.definitions.defs().get_repository_def()
assert "demo" in {key.path[0] for key in repository.assets_defs_by_key}
repository.get_all_jobs()
"""

_PROJECT_OF_A_USER = """
import yard.definitions
assets = yard.definitions.defs().get_repository_def().assets_defs_by_key
found = {key.path[0] for key in assets}
assert found >= {"first", "second"}, found
"""

_ROOMS = f"""
import importlib, importlib.util, pkgutil, sys
without_ray = importlib.util.find_spec("dagster_ray") is None
for room in [importlib.import_module("extraction_assets." + room) for room in {LIGHT_ROOMS!r}]:
    for module in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
        if without_ray and module.name.endswith(".ray_launcher"):
            continue  # a module that dagster.yaml names alone
        if not module.name.endswith("__main__") and ".migrations" not in module.name:
            importlib.import_module(module.name)
            assert "torch" not in sys.modules, module.name
"""

_COMMANDS = (
    "--help",
    "run --help",
    "list",
    "saes",
    "saes gpt2-small-res-jb",
    "--module tiny_module list",
    "--module tiny_module show tiny --sae relu",
    "--module tiny_module show tiny 3 --sae topk",
)
_STATUS = ("status demo", "--module tiny_module status tiny")
_MAY_LOAD = dict.fromkeys((*_STATUS, "rooms"), NOT_FOR_READING)
"""``status`` asks Dagster's history, and looks at the footers of tables."""


def _command(words: str) -> str:
    return f"from extraction_assets.cli import main; main({words.split()!r}, standalone_mode=False)"


def test_what_is_declared_listed_and_shown_loads_nothing_heavy(
    project: Project, home: Path, yard: Path, tmp_path: Path
) -> None:
    make_dagster_home(home / "dagster")  # once, with Dagster's own migrations
    (tmp_path / "tiny_module.py").write_text(DEFINITIONS.format(settings=project.settings.model_dump_json()))
    steps = {"browser": _BROWSER, "code location": _CODE_LOCATION, "project of a user": _PROJECT_OF_A_USER}
    steps |= {words: _command(words) for words in (*_COMMANDS, *_STATUS)} | {"rooms": _ROOMS}
    paths = os.pathsep.join(map(str, (ROOT, tmp_path, yard.parents[1])))
    command = [sys.executable, "-c", _PROGRAM, json.dumps(steps)]
    environment = {**os.environ, "DAGSTER_HOME": "", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {name: set(packages) for name, packages in json.loads(done.stdout.splitlines()[-1]).items()}
    assert found == {name: found[name] & set(_MAY_LOAD.get(name, ())) for name in steps}


def test_a_command_ends_without_looking_for_garbage() -> None:
    code = """
        import atexit, gc, os
        atexit.register(lambda: os.write(2, b"frozen" if gc.get_freeze_count() else b"collected"))  # runs last
        os.environ["DAGSTER_HOME"] = ""
        from extraction_assets.cli import main
        main(["run", "--help"])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert done.stderr == "frozen"
