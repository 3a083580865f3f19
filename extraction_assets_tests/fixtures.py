"""Fixtures: every test has a home of its own; the tiny model, SAEs and texts are made once."""

import itertools
import os
import re
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

from extraction_assets.database.connect import open_database
from extraction_assets.engine.hub import transfer
from extraction_assets.execution import failures
from extraction_assets_tests import command, hub_server, object_storage, postgres, quick_dagster, seeds, tiny
from extraction_assets_tests.project import Project
from extraction_assets_tests.reused_database import ReusedDatabase

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
torch.set_num_threads(1)  # pytest-xdist runs one worker a core
quick_dagster.hurry()
quick_dagster.leave_out_snapshots()


# Nothing here cuts the power: what a process has written, others see without waiting for the disk. A new Dagster home
# takes 0.2 seconds instead of 1.6. Processes that tests start, also those that are killed, wait for files and results
# as they do in earnest, and for Dagster's history as little as this one.
os.fsync = lambda _file: None  # type: ignore[assignment]

# What a run tries again, such as a database that does not answer, it tries without waiting 35 seconds in all.
failures.FIRST_WAIT_SECONDS = transfer.FIRST_WAIT_SECONDS = 0.01


@sa.event.listens_for(sa.pool.Pool, "connect")
def _do_not_wait_for_the_disk(connection: Any, *_: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def _folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _numbers: Iterator[int]) -> Path:
    """Where ``tmp_path`` and the home are to be. Most tests make neither, and ten thousand folders take 5 seconds."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.getbasetemp() / f"{name}{next(_numbers)}"


@pytest.fixture
def tmp_path(_folder: Path) -> Path:
    """As pytest's, which looks through the folders of all earlier tests for a free name: 20 seconds in 5,000 tests."""
    _folder.mkdir(mode=0o700, exist_ok=True)
    return _folder


@pytest.fixture(autouse=True)
def home(_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for files, results and Dagster's history that no other test sees."""
    folder = _folder / "home"
    monkeypatch.setenv("EXTRACTION_HOME", str(folder))
    for name in (
        "EXTRACTION_STORE",
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
def tokenized_once(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the corpus of the tiny extraction; copy it, as ``tokenized`` does. Not to be changed."""
    folder = tmp_path_factory.mktemp("tokenized") / "home"
    Project(tiny.make_settings(tiny_folder), folder).corpus()
    return folder


@pytest.fixture
def tokenized(tokenized_once: Path, tiny_folder: Path, home: Path) -> Project:
    """The tiny extraction with its corpus, in this test's own home. The history of its run is left out."""
    shutil.copytree(tokenized_once, home)
    return Project(tiny.make_settings(tiny_folder), home)


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


@pytest.fixture(scope="session")
def completed_once(merged_once: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``merged_once``, with the relations and directions that a command makes, and a report that shows them."""
    folder = tmp_path_factory.mktemp("completed") / "home"
    shutil.copytree(merged_once, folder)
    for report in folder.glob("*/*/feature_report/*.html"):
        report.unlink()  # it was written before the relations
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXTRACTION_HOME", str(folder))
        command.succeed(command.declare(patch, tiny.make_settings(tiny_folder)), "run", "tiny", "--missing")
    return folder


@pytest.fixture
def completed(completed_once: Path, tiny_folder: Path, home: Path) -> Project:
    """As ``project``, with everything that a command makes: ``run --missing`` finds nothing to do."""
    shutil.copytree(completed_once, home)
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


@pytest.fixture(scope="session")
def s3_running() -> Iterator[object_storage.S3Server]:
    """An S3 server that lives as long as the tests of this process, with an empty bucket ``results``."""
    with object_storage.s3_server() as server:
        server.client().mkdir("results")
        yield server


@pytest.fixture
def s3(s3_running: object_storage.S3Server, monkeypatch: pytest.MonkeyPatch) -> object_storage.S3Server:
    """The same, where ``s3://`` finds it. Tests share its bucket: each has folders of its own."""
    for name, value in s3_running.environment.items():
        monkeypatch.setenv(name, value)
    return s3_running


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    """The URL of an empty PostgreSQL database that no other test sees."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql", "parquet"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a results database without tables, of each kind in turn; SQLite's is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'results.sqlite'}"
    if request.param == "parquet":
        return f"parquet:///{tmp_path / 'results'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql", "parquet"])
def results_url(request: pytest.FixtureRequest) -> str:
    """The URL of a results database with the current tables and without rows, of each kind in turn."""
    url: str = request.getfixturevalue(f"_{request.param}_with_tables")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "parquet"])
def shared_results_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As ``results_url``, for all tests of a file that only read what a fixture of the file has stored there."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("shared")
        yield f"sqlite:///{shutil.copy(request.getfixturevalue('_sqlite_tables'), folder)}"
    elif request.param == "parquet":
        folder = tmp_path_factory.mktemp("shared") / "results"
        yield f"parquet:///{shutil.copytree(request.getfixturevalue('_parquet_tables'), folder)}"
    else:
        server: postgres.Server = request.getfixturevalue("postgres_server")
        url = server.new_database()
        open_database(url).dispose()
        yield url
        server.drop_database(url)


@pytest.fixture(scope="session")
def _parquet_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "results"
    open_database(f"parquet:///{folder}").dispose()
    return folder


@pytest.fixture
def _parquet_with_tables(_parquet_tables: Path, tmp_path: Path) -> str:
    return f"parquet:///{shutil.copytree(_parquet_tables, tmp_path / 'results')}"


@pytest.fixture(scope="session")
def _sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sqlite") / "results.sqlite"
    open_database(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture
def _sqlite_with_tables(_sqlite_tables: Path, tmp_path: Path) -> str:
    (tmp_path / "folder").mkdir()
    return f"sqlite:///{shutil.copy(_sqlite_tables, tmp_path / 'folder')}"


@pytest.fixture(scope="session")
def _reused_database(postgres_server: postgres.Server) -> ReusedDatabase:
    return ReusedDatabase(postgres_server)


@pytest.fixture
def _postgresql_with_tables(_reused_database: ReusedDatabase) -> Iterator[str]:
    yield _reused_database.take()
    _reused_database.give_back()


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Dagster project ``yard`` with the extractions ``first`` and ``second``; its defs folder."""
    from extraction_assets_tests import test_component

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
