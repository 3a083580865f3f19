"""Fields that a module gives as environment variables mean the same to every command as to a run."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest

from extraction_assets.component import build_definitions
from extraction_assets.database.errors import DatabaseError
from extraction_assets.resources import ChunkStoreResource, GpuResource, ResultsResource
from extraction_assets.resources.resolve import ResourceError, resolve_resource
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.tiny import make_settings


@pytest.fixture
def elsewhere(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module whose resources all come from the environment, and lie outside EXTRACTION_HOME."""
    declare(monkeypatch)  # what a command needs of the environment
    resources = {
        "gpu": GpuResource(device=dg.EnvVar("MY_DEVICE"), batch_size=dg.EnvVar.int("MY_BATCH")),
        "chunk_store": ChunkStoreResource(root=dg.EnvVar("MY_ROOT")),
        "results": ResultsResource(url=dg.EnvVar("MY_RESULTS")),
    }
    shared = dg.Definitions(resources=resources, executor=dg.in_process_executor)
    made = ModuleType("elsewhere")
    made.defs = dg.Definitions.merge(build_definitions(make_settings(tiny_folder)), shared)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "elsewhere", made)
    monkeypatch.setenv("MY_DEVICE", "cpu")
    monkeypatch.setenv("MY_BATCH", "4")
    monkeypatch.setenv("MY_ROOT", str(tmp_path / "files"))
    monkeypatch.setenv("MY_RESULTS", f"sqlite:///{tmp_path / 'rows' / 'mine.sqlite'}")
    return "elsewhere"


@pytest.mark.slow
def test_every_command_works_on_the_places_that_the_environment_names(
    elsewhere: str, tmp_path: Path, home: Path
) -> None:
    assert f"database   sqlite:///{tmp_path}/rows/mine.sqlite" in succeed(elsewhere, "run", "tiny")
    assert succeed(elsewhere, "list").count("3 of 3 chunks, merged") == 2
    assert "relu/feature_examples        merged" in succeed(elsewhere, "status", "tiny")
    assert "feature" in succeed(elsewhere, "show", "tiny", "--sae", "relu")
    assert "nothing to remove" in succeed(elsewhere, "clean", "--yes")
    assert "all chunks" in succeed(elsewhere, "check", "tiny")
    assert "removed tiny" in succeed(elsewhere, "delete", "tiny", "--yes")
    assert {path.name for path in home.iterdir()} == {"dagster"}


@pytest.mark.slow
def test_the_doctor_looks_at_the_places_of_the_modules_resources(elsewhere: str, tmp_path: Path) -> None:
    output = invoke(elsewhere, "doctor").output
    assert f"database     sqlite:///{tmp_path}/rows/mine.sqlite is not made yet" in output
    assert f"chunk_store.root is {tmp_path}/files (set by the module's resources), not made yet" in output
    assert f"free for files ({tmp_path})" in output


@pytest.mark.parametrize("command", ["list", "status", "show", "run", "clean", "check"])
def test_a_variable_that_is_not_set_is_named(elsewhere: str, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    for name in ("MY_ROOT", "MY_RESULTS"):
        monkeypatch.delenv(name)
    result = invoke(elsewhere, command, *([] if command in ("list", "clean") else ["tiny"]))
    assert result.exit_code == 1
    assert "the environment variable MY_R" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"device": dg.EnvVar("VALUE")}, "cpu"),
        ({"matmul_precision": dg.EnvVar("PRECISION")}, "highest"),
        ({"vectorized": dg.EnvVar("SWITCH")}, False),
        ({"compile_model": dg.EnvVar("SWITCH")}, False),
        ({"batch_size": dg.EnvVar("NUMBER")}, 7),
        ({"num_workers": dg.EnvVar.int("NUMBER")}, 7),
        ({"vectorization_batch_size": dg.EnvVar("NUMBER")}, 7),
        ({"memory_budget_gb": dg.EnvVar("NUMBER")}, 7.0),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_field_of_the_gpu_may_be_a_variable(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], expected: Any
) -> None:
    for name, value in (("VALUE", "cpu"), ("PRECISION", "highest"), ("SWITCH", "False"), ("NUMBER", "7")):
        monkeypatch.setenv(name, value)
    (field,) = fields
    assert getattr(resolve_resource({"gpu": GpuResource(**fields)}, GpuResource), field) == expected


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DEVICE", "banana")
    with pytest.raises(ResourceError, match=r"'gpu' \(device from MY_DEVICE\) cannot be used: device must be 'auto'"):
        resolve_resource({"gpu": GpuResource(device=dg.EnvVar("MY_DEVICE"))}, GpuResource)


def test_of_several_variables_the_one_at_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DEVICE", "cpu")
    monkeypatch.setenv("MY_WORKERS", "-3")
    bound = {"gpu": GpuResource(device=dg.EnvVar("MY_DEVICE"), num_workers=dg.EnvVar("MY_WORKERS"))}
    with pytest.raises(ResourceError, match=r"'gpu' \(num_workers from MY_WORKERS\) cannot be used"):
        resolve_resource(bound, GpuResource)


@pytest.mark.parametrize("field", ["vectorized", "compile_model", "matmul_precision"])
def test_a_field_that_is_read_at_once_names_itself_and_its_variable(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setenv("MY_SWITCH", "maybe")
    with pytest.raises(ValueError, match=rf"gpu\.{field} is 'maybe', from the environment variable MY_SWITCH: use "):
        GpuResource(**{field: dg.EnvVar("MY_SWITCH")})


def test_a_url_that_is_none_names_the_resource_and_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_RESULTS", "foo")
    results = resolve_resource({"results": ResultsResource(url=dg.EnvVar("MY_RESULTS"))}, ResultsResource)
    stated = "the url of the resource 'results', from MY_RESULTS, is not a database's URL"
    with pytest.raises(DatabaseError, match=stated):
        results.parsed_url()
    with pytest.raises(DatabaseError, match=stated), results.open():
        pass
    with pytest.raises(DatabaseError, match=stated), results.read():
        pass


def test_run_refuses_a_url_that_is_none_before_the_corpus(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_RESULTS", "foo")
    result = invoke(elsewhere, "run", "tiny")
    assert result.exit_code == 1
    assert "from MY_RESULTS, is not a database's URL" in result.stderr
    assert "corpus of tiny" not in result.stderr


@pytest.mark.parametrize(("bound", "match"), [({}, "bind no resource 'results'"), ({"results": 3}, "bind a int as")])
def test_a_missing_or_foreign_resource_is_named(bound: dict[str, Any], match: str) -> None:
    with pytest.raises(ResourceError, match=match):
        resolve_resource(bound, ResultsResource)


def test_a_resource_configured_at_launch_is_what_a_run_without_configuration_gets(home: Path) -> None:
    bound = {"chunk_store": ChunkStoreResource.configure_at_launch()}
    assert resolve_resource(bound, ChunkStoreResource).open().root == home
