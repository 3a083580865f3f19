"""Fixtures: every test has a home of its own; the tiny model, SAEs and texts are made once."""

import gc
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import torch
from huggingface_hub.utils import close_session

from extraction_assets.engine.hub import transfer
from extraction_assets.execution import failures
from extraction_assets_tests import hub_server, postgres, quick_dagster, seeds, tiny
from extraction_assets_tests.project import Project

gc.disable()  # until all tests are collected
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
torch.set_num_threads(1)  # pytest-xdist runs one worker a core
quick_dagster.hurry()


# Nothing here cuts the power: what a process has written, others see without waiting for the disk. A new Dagster home
# takes 0.2 seconds instead of 1.6. Processes that tests start, also those that are killed, wait as they do in earnest.
os.fsync = lambda _file: None  # type: ignore[assignment]


@sa.event.listens_for(sa.pool.Pool, "checkout")
def _do_not_wait_for_the_disk(connection: Any, *_: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def pytest_addoption(parser: pytest.Parser) -> None:
    seeds.add_option(parser)
    parser.addoption("--ui", action="store_true", help="also run the tests that drive a browser")
    parser.addoption("--screenshots", default="build/screenshots", help="folder of the browser tests' screenshots")


def pytest_configure(config: pytest.Config) -> None:
    seeds.choose(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(seeds.said(config))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without --ui the tests that drive a browser are not even imported: they need packages of their own."""
    return True if collection_path == Path(__file__).with_name("ui") and not config.getoption("--ui") else None


_WHOLE_RUNS = {"demo_home", "done", "lab", "merged_once", "on_postgres", "project", "ran", "served", "workshop"}
"""Fixtures behind which a whole extraction or a real process runs: what uses one is slow."""

_MANY_SECONDS = {
    "defs_yaml/test_folder.py",
    "hub/test_download.py",
    "models/test_hooks.py",
    "models/test_hooks_of_loaders.py",
    "models/test_lengths.py",
    "models/test_loaded_weights.py",
    "models/test_names.py",
    "models/test_published_hooks.py",
    "models/test_transformer_lens.py",
    "models/test_unused_keys.py",
    "tests/test_processes.py",
}
"""Files of quick tests that take seconds together, such as one test for each family of models: slow too."""

_FIRST = (
    "test_demo.py",
    "kills/test_random_moments.py",  # mostly waits
    "examples/test_asset.py",
    "kills/test_schedule.py",  # mostly waits
    "chunks/test_asset.py",
    "cli/test_healing.py",
    "cli/test_cli.py",
    "execution/test_damage.py",
    "cli/test_init.py",
    "kills/test_slot.py",  # mostly waits
    "kills/test_backfill.py",  # mostly waits
    "upkeep/test_clean.py",
    "upkeep/test_delete.py",
    "test_postgres.py",
    "chunks/test_pending.py",
    "test_benchmarks.py",  # mostly waits
    "execution/test_lineage.py",
    "execution/test_failures.py",
    "corpus/test_asset.py",
    "kills/test_cancel.py",  # mostly waits
    "early_checks/test_batch.py",
    "early_checks/test_extraction.py",
    "cli/test_ui.py",
    "ui/test_ui.py",  # makes the results that the other tests in Chromium read
)
"""Files in the order in which workers take them. One worker in three may wait for a daemon while two compute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, the longest before all others, so that no worker is left alone with one at the end."""
    for item in items:
        many = any(item.path.as_posix().endswith(f"{name}") for name in _MANY_SECONDS)
        if many or _WHOLE_RUNS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_number(item.path.as_posix()), item.path not in slow))


def _number(path: str) -> int:
    """Of a file in ``_FIRST``; those that it does not name come after it."""
    return next((number for number, name in enumerate(_FIRST) if path.endswith(f"/{name}")), len(_FIRST))


def pytest_collection_finish() -> None:
    """Leave what is there by now out of every garbage collection, each of which would look at a million objects: tests
    that run out of memory on purpose collect at every halving."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for files, results and Dagster's history that no other test sees."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EXTRACTION_HOME", str(folder))
    for name in (
        "EXTRACTION_DATABASE_URL",
        "EXTRACTION_DAGSTER_POSTGRES_URL",
        "DAGSTER_HOME",
        "USE_VECTORIZED_EXTRACTION",
        "EXTRACTION_PROGRESS",
        "EXTRACTION_BROWSER_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """What a test's own generator starts with; those of torch, NumPy and Python have started with it."""
    number = seeds.of_test(request.node)
    seeds.start(number)
    return number


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run tries again, such as a database that does not answer, it tries without waiting 35 seconds in all."""
    monkeypatch.setattr(failures, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(transfer, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.HubServer]:
    """A hub on this machine, without repositories, and an empty cache for it in ``tmp_path / "hf"``."""
    with hub_server.HubServer().running() as server:
        hub_server.use_hub(server, tmp_path / "hf", monkeypatch)
        yield server
        close_session()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``model``, ``texts``, and the SAEs ``relu`` and ``topk``. Not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_settings(folder)
    return folder


@pytest.fixture(scope="session")
def merged_once(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the tiny extraction has run and is merged; copy it, as ``project`` does. Not to be changed."""
    folder = tmp_path_factory.mktemp("merged") / "home"
    (folder / "dagster").mkdir(parents=True)
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:  # the one that commands find
        Project(tiny.make_settings(tiny_folder), folder, instance=instance).everything()
    return folder


@pytest.fixture
def project(merged_once: Path, tiny_folder: Path, home: Path) -> Project:
    """The tiny extraction, all of it done and merged, in this test's own home."""
    shutil.copytree(merged_once, home)
    return Project(tiny.make_settings(tiny_folder), home)


@pytest.fixture
def recorded(merged_once: Path, tiny_folder: Path, home: Path) -> Iterator[Project]:
    """As ``project``, with the history of the runs."""
    shutil.copytree(merged_once, home)
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        yield Project(tiny.make_settings(tiny_folder), home, instance=instance)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server that lives as long as the tests of this process."""
    programs = postgres.find_programs()
    if programs is None:
        pytest.skip(postgres.MISSING)
    with postgres.running_server(programs) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> str:
    """The URL of an empty PostgreSQL database that no other test sees."""
    return postgres_server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def results_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty results database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'results.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Dagster project ``yard`` with the extractions ``first`` and ``second``; its defs folder."""
    from extraction_assets_tests import command, test_component

    package = tmp_path / "project" / "yard"
    for name, sae in (("first", "relu"), ("second", "topk")):
        (package / "defs" / name).mkdir(parents=True)
        (package / "defs" / name / "defs.yaml").write_text(test_component.YAML.format(sae=sae))
    tiny.make_settings(package / "models")
    (package / "__init__.py").write_text("")
    loader = "dg.load_from_defs_folder(path_within_project=Path(__file__).parent)"
    own = test_component.DEFINITIONS.replace(loader, "load_defs_folder(Path(__file__).parent)")
    (package / "definitions.py").write_text(
        own.replace("default_resources\n", "default_resources, load_defs_folder\n", 1)
    )
    (package.parent / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "yard"\n')
    command.declare(monkeypatch)  # what a command needs of the environment
    monkeypatch.syspath_prepend(str(package.parent))
    yield package / "defs"
    for name in [name for name in sys.modules if name.split(".")[0] == "yard"]:
        del sys.modules[name]
