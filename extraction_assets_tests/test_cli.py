"""The command line on a tiny extraction, on a persistent instance of its own."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from extraction_assets import cli, default_resources
from extraction_assets.component import build_definitions
from extraction_assets_tests.tiny import make_settings


@pytest.fixture
def module(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module whose definitions hold the tiny extraction."""
    import sys

    made = ModuleType("tiny_definitions")
    made.defs = dg.Definitions.merge(  # type: ignore[attr-defined]
        build_definitions(make_settings(tiny_folder)),
        dg.Definitions(resources=default_resources(), executor=dg.in_process_executor),
    )
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setenv("EXTRACTION_PROGRESS", "log")
    monkeypatch.setenv("DAGSTER_HOME", "")
    return made.__name__


def _invoke(module: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["--module", module, *arguments])


def test_list_names_extractions_and_saes(module: str) -> None:
    output = _invoke(module, "list").output
    assert "tiny" in output
    assert "relu" in output
    assert "23 samples of 16 tokens in 3 chunks" in output


def test_run_ends_with_five_features_and_where_things_are(module: str, home: Path) -> None:
    result = _invoke(module, "run", "tiny")
    assert result.exit_code == 0, result.output
    assert result.output.count("feature ") >= 5
    assert f"database   sqlite:///{home}/results.sqlite" in result.output
    assert f"files      {home}" in result.output
    assert "UI         extraction-assets ui" in result.output


def test_runs_stand_in_the_persistent_history_that_the_ui_opens(module: str, home: Path) -> None:
    _invoke(module, "run", "tiny")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        assert len(instance.get_runs()) == 4  # corpus, chunks, and a merge of each SAE
        key = dg.AssetKey(["tiny", "relu", "top_k_table"])
        assert len(instance.get_materialized_partitions(key)) == 3


def test_chunks_takes_a_slice_and_merges_once_none_is_missing(module: str) -> None:
    first = _invoke(module, "run", "tiny", "--chunks", "0:2")
    assert "1 of 3 chunks are missing: nothing merged yet" in first.output
    rest = _invoke(module, "run", "tiny", "--missing")
    assert "1 chunks, 2 merge(s)" in rest.output


def test_missing_reads_what_is_stored_upstream(module: str, home: Path) -> None:
    _invoke(module, "run", "tiny")
    next(home.glob("tiny/relu/top_k_table/000000000008-*.parquet")).unlink()
    result = _invoke(module, "run", "tiny", "--missing")
    assert result.exit_code == 0, result.output
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        events = {
            asset: len(instance.fetch_materializations(dg.AssetKey(["tiny", *asset.split("/")]), limit=100).records)
            for asset in ("model_activations", "relu/sae_features", "relu/top_k_table", "topk/top_k_table")
        }
    assert events == {
        "model_activations": 3,
        "relu/sae_features": 3,
        "relu/top_k_table": 4,
        "topk/top_k_table": 3,
    }


def test_status_counts_done_stale_and_missing(module: str) -> None:
    assert "all 3 chunks are missing" in _invoke(module, "status", "tiny").output
    _invoke(module, "run", "tiny", "--chunks", ":2")
    output = _invoke(module, "status", "tiny").output
    assert "not merged yet" in output
    (line,) = (line for line in output.splitlines() if line.startswith("relu/top_k_table"))
    assert line.split()[1:] == ["2", "0", "1"]


def test_show_prints_examples_in_context(module: str) -> None:
    _invoke(module, "run", "tiny")
    result = _invoke(module, "show", "tiny", "3", "--sae", "topk", "--limit", "2")
    assert result.exit_code == 0, result.output
    assert "feature 3" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "no extraction 'nothing'; declared are: tiny"),
        (["status", "nothing"], "no extraction 'nothing'"),
        (["show", "tiny"], "no merged results of extraction 'tiny': run it first"),
        (["run", "tiny", "--chunks", "a:b"], "--chunks takes A:B with whole numbers"),
        (["run", "tiny", "--chunks", "7:9"], "holds none of the 3 chunks"),
        (
            ["run", "tiny", "--vectorization-batch-size", "banana"],
            "'auto' or a whole number of at least 1, got 'banana'",
        ),
        (["run", "tiny", "--device", "cuda:77"], "cuda:77"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence(module: str, arguments: list[str], message: str) -> None:
    result = _invoke(module, *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("variable", ["banana", "sqlite:////proc/nowhere/results.sqlite"])
def test_a_database_that_cannot_be_opened_is_one_sentence(
    module: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", variable)
    result = _invoke(module, "show", "tiny")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert len(result.output.splitlines()) < 6


def test_an_unknown_module_is_one_sentence() -> None:
    result = _invoke("no_such_module", "list")
    assert "No module named 'no_such_module'" in result.output


@pytest.mark.parametrize("command", ["list", "run", "show", "status", "ui"])
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(cli.main, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 3
