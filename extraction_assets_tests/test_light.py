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
from extraction_assets_tests.project import Project

pytestmark = pytest.mark.slow

HEAVY = ("datasets", "pandas", "scipy", "sentencepiece", "tokenizers", "torch", "transformers")

LIGHT_ROOMS = (
    "automation",
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
    "engine.shapes",
    "execution.lineage",
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
    return " ".join(name for name in {HEAVY!r} if name in sys.modules)
try:
%s
finally:
    print("loaded:", loaded())
"""


def _loaded(code: str, *arguments: str, folder: Path | None = None) -> str:
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
    return done.stdout.splitlines()[-1].removeprefix("loaded:").strip()


_COMMANDS = """
    import os
    os.environ["DAGSTER_HOME"] = ""
    from extraction_assets.cli import main
    for words in sys.argv[1:]:
        main(words.split(), standalone_mode=False)
        assert not loaded(), f"{words} loads {loaded()}"
"""
"""Commands one after the other in one process: each has loaded what those before it have, which is nothing heavy."""


def test_commands_load_nothing_heavy() -> None:
    assert _loaded(_COMMANDS, "--help", "run --help", "list", "status demo") == ""


DEFINITIONS = """
import dagster as dg
from extraction_assets import default_resources
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings

settings = ExtractionSettings.model_validate_json({settings!r})
defs = dg.Definitions.merge(build_definitions(settings), dg.Definitions(resources=default_resources()))
"""


def test_commands_on_merged_results_load_nothing_heavy(project: Project, tmp_path: Path) -> None:
    (tmp_path / "tiny_module.py").write_text(DEFINITIONS.format(settings=project.settings.model_dump_json()))
    commands = ("list", "status tiny", "show tiny --sae relu", "show tiny 3 --sae topk")
    assert _loaded(_COMMANDS, *(f"--module tiny_module {one}" for one in commands), folder=tmp_path) == ""


def test_a_code_location_loads_nothing_heavy() -> None:
    code = """
        import extraction_assets.definitions
        repository = extraction_assets.definitions.defs().get_repository_def()
        assert "demo" in {key.path[0] for key in repository.assets_defs_by_key}
        repository.get_all_jobs()
    """
    assert _loaded(code) == ""


def test_a_project_of_a_user_loads_nothing_heavy(yard: Path) -> None:
    code = """
        import yard.definitions
        assets = yard.definitions.defs().get_repository_def().assets_defs_by_key
        found = {key.path[0] for key in assets}
        assert found >= {"first", "second"}, found
    """
    assert _loaded(code, folder=yard.parents[1]) == ""


def test_every_module_of_a_light_room_loads_nothing_heavy() -> None:
    code = f"""
        import importlib, pkgutil, sys
        rooms = [importlib.import_module("extraction_assets." + room) for room in {LIGHT_ROOMS!r}]
        for room in rooms:
            for module in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
                if not module.name.endswith("__main__") and ".migrations" not in module.name:
                    importlib.import_module(module.name)
                    assert "torch" not in sys.modules, module.name
    """
    assert _loaded(code) == ""
