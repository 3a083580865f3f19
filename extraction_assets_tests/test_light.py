"""What is declared, listed and shown loads no torch: what takes seconds to import, the step imports that needs it.

Each case is a process of its own, whose last line names the heavy packages that it has loaded.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import extraction_assets
from extraction_assets.dagster_instance.home import make_dagster_home
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

_PROGRAM = f"""
import sys
def loaded():
    return " ".join(name for name in {HEAVY + NOT_FOR_READING!r} if name in sys.modules)
try:
%s
finally:
    print("loaded:", loaded())
"""


def _loaded(code: str, *arguments: str, folder: Path | None = None) -> set[str]:
    """The heavy packages that a process has loaded at the end of ``code``; prints the CPU seconds that it took."""
    before = os.times()
    root = Path(extraction_assets.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(folder or root)])}
    program = _PROGRAM % textwrap.indent(textwrap.dedent(code).strip(), "    ")
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    after = os.times()
    seconds = after.children_user - before.children_user + after.children_system - before.children_system
    print(f"{' '.join(arguments) or code.strip()[:60]}: {seconds:.1f} CPU seconds")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("loaded:").split())


_COMMANDS = """
    import os
    os.environ["DAGSTER_HOME"] = ""
    from extraction_assets.cli import main
    for words in sys.argv[1:]:
        assert not loaded(), f"what comes before {words} loads {loaded()}"
        main(words.split(), standalone_mode=False)
"""
"""Commands one after the other in one process: all but the last have loaded nothing heavy."""


def test_commands_load_nothing_heavy(home: Path) -> None:
    make_dagster_home(home / "dagster")  # once, with Dagster's own migrations
    found = _loaded(_COMMANDS, "--help", "run --help", "list", "saes", "saes gpt2-small-res-jb", "status demo")
    assert found <= set(NOT_FOR_READING)  # ``status`` asks Dagster's history


def test_the_browser_loads_nothing_heavy_and_no_dagster(home: Path) -> None:
    code = """
        import sys
        from extraction_assets.browser import app, server
        from extraction_assets.cli import browse
        databases = browse._databases(browse.DEFAULT_MODULE)
        application = browse.make_app(*databases, (), False, None)
        from starlette.testclient import TestClient
        assert "Nothing is merged yet" in TestClient(application, base_url="http://localhost").get("/").text
        assert "dagster" not in sys.modules
    """
    assert _loaded(code) == set()


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


DEFINITIONS = """
import dagster as dg
from extraction_assets import default_resources
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings

settings = ExtractionSettings.model_validate_json({settings!r})
defs = dg.Definitions.merge(build_definitions(settings), dg.Definitions(resources=default_resources()))
"""


def test_commands_on_merged_results_load_nothing_heavy(project: Project, home: Path, tmp_path: Path) -> None:
    make_dagster_home(home / "dagster")
    (tmp_path / "tiny_module.py").write_text(DEFINITIONS.format(settings=project.settings.model_dump_json()))
    commands = ("list", "show tiny --sae relu", "show tiny 3 --sae topk", "status tiny")
    found = _loaded(_COMMANDS, *(f"--module tiny_module {one}" for one in commands), folder=tmp_path)
    assert found <= set(NOT_FOR_READING)  # ``status`` looks at the footers of tables too


def test_a_code_location_loads_nothing_heavy() -> None:
    code = """
        import extraction_assets.definitions
        repository = extraction_assets.definitions.defs().get_repository_def()
        assert "demo" in {key.path[0] for key in repository.assets_defs_by_key}
        repository.get_all_jobs()
    """
    assert _loaded(code) == set()


def test_a_project_of_a_user_loads_nothing_heavy(yard: Path) -> None:
    code = """
        import yard.definitions
        assets = yard.definitions.defs().get_repository_def().assets_defs_by_key
        found = {key.path[0] for key in assets}
        assert found >= {"first", "second"}, found
    """
    assert _loaded(code, folder=yard.parents[1]) == set()


def test_every_module_of_a_light_room_loads_nothing_heavy() -> None:
    code = f"""
        import importlib, importlib.util, pkgutil, sys
        without_ray = importlib.util.find_spec("dagster_ray") is None
        rooms = [importlib.import_module("extraction_assets." + room) for room in {LIGHT_ROOMS!r}]
        for room in rooms:
            for module in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
                if without_ray and module.name.endswith(".ray_launcher"):
                    continue  # a module that dagster.yaml names alone
                if not module.name.endswith("__main__") and ".migrations" not in module.name:
                    importlib.import_module(module.name)
                    assert "torch" not in sys.modules, module.name
    """
    assert _loaded(code) & set(HEAVY) == set()
