"""The command line on a tiny extraction, on a persistent instance of its own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import pytest
from click.testing import CliRunner

from extraction_assets import cli
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets_tests.command import declare
from extraction_assets_tests.command import invoke as _invoke
from extraction_assets_tests.tiny import make_faithful_sae, make_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def module(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module whose definitions hold the tiny extraction."""
    return declare(monkeypatch, make_settings(tiny_folder))


class Ran(NamedTuple):
    """A run of the tiny extraction."""

    home: Path
    output: str


@pytest.fixture(scope="module")
def ran(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The tiny extraction, run once by the command. Not to be changed."""
    folder = tmp_path_factory.mktemp("ran") / "home"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("EXTRACTION_HOME", str(folder))
        result = _invoke(declare(monkeypatch, make_settings(tiny_folder)), "run", "tiny")
    assert result.exit_code == 0, result.output
    return Ran(folder, result.output)


@pytest.fixture
def ran_module(ran: Ran, module: str, home: Path) -> str:
    """The module of the tiny extraction, which has been run in this test's own home."""
    shutil.copytree(ran.home, home)
    return module


def test_list_names_extractions_and_saes(module: str) -> None:
    output = _invoke(module, "list").output
    assert "tiny" in output
    assert "relu" in output
    assert "23 samples of 16 tokens in 3 chunks" in output
    assert output.count("0 of 3 chunks, not merged") == 2


LONG = "layer_9_width_16k_l0_medium"


@pytest.fixture
def long_module(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny extraction with an SAE of a long name, whose hook its checkpoint records."""
    recorded = tiny_folder / "recorded"
    if not recorded.exists():
        make_faithful_sae(recorded, hook="layers.0")
    saes = {"relu": {"path": str(tiny_folder / "relu"), "hook": "layers.1"}, LONG: {"path": str(recorded)}}
    saes["relu"]["minimum_variance_explained"] = "-1e9"
    return declare(monkeypatch, make_settings(tiny_folder, saes=saes))


def test_columns_are_as_wide_as_long_names(long_module: str, home: Path) -> None:
    assert "as recorded" in _invoke(long_module, "list").output
    result = _invoke(long_module, "run", "tiny")
    assert result.exit_code == 0, result.output
    heading, *rows = _invoke(long_module, "status", "tiny").output.splitlines()[1:7]
    assert {len(line) for line in rows if "not kept" not in line} == {len(heading)}
    lines = _invoke(long_module, "list").output.splitlines()[2:4]
    assert len({line.index("3 of 3 chunks") for line in lines}) == 1
    assert "layers.0 " in lines[1]
    assert "as recorded" not in lines[1]


def test_list_counts_chunks_and_merges_and_makes_no_database(module: str, home: Path) -> None:
    _invoke(module, "list")
    assert not (home / "results.sqlite").exists()
    _invoke(module, "run", "tiny", "--chunks", ":2")
    assert _invoke(module, "list").output.count("2 of 3 chunks, not merged") == 2
    _invoke(module, "run", "tiny", "--missing")
    assert _invoke(module, "list").output.count("3 of 3 chunks, merged 20") == 2


def test_list_shows_what_is_declared_where_the_database_is_out_of_reach(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", "postgresql+nothing://nowhere/results")
    result = _invoke(module, "list")
    assert result.exit_code == 0
    assert "relu" in result.stdout
    assert result.stderr.startswith("results database: ")


@pytest.mark.parametrize("command", [["list"], ["status", "tiny"], ["delete", "tiny", "--dry-run"]], ids=" ".join)
def test_a_url_that_is_none_is_named_and_no_part_of_its_password_shown(
    module: str, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", "postgresql://lab:p@ss:w/1@127.0.0.1:55871/x")
    output = _invoke(module, *command).output
    assert "EXTRACTION_DATABASE_URL is not a database's URL, sqlite:///path or postgresql://user:password" in output
    assert "'w'" not in output
    assert "ss:w" not in output


def test_run_ends_with_five_features_and_where_things_are(module: str, ran: Ran) -> None:
    assert ran.output.count("feature ") >= 5
    assert f"database   sqlite:///{ran.home}/results.sqlite" in ran.output
    assert f"files      {ran.home}" in ran.output
    reports = [line.split()[1] for line in ran.output.splitlines() if line.startswith("report  ")]
    assert [Path(path).relative_to(ran.home).parts[:2] for path in reports] == [("tiny", "relu"), ("tiny", "topk")]
    assert all("<html" in Path(path).read_text("utf-8") for path in reports)
    assert f"more       extraction-assets --module {module} show tiny FEATURE --sae relu" in ran.output
    assert f"UI         extraction-assets --module {module} ui" in ran.output


def test_runs_stand_in_the_persistent_history_that_the_ui_opens(ran: Ran) -> None:
    with dg.DagsterInstance.from_config(str(ran.home / "dagster")) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        assert len(instance.get_runs()) == 5  # corpus, chunks, a merge of each SAE, and the directions of both
        key = dg.AssetKey(["tiny", "relu", "top_k_table"])
        assert len(instance.get_materialized_partitions(key)) == 3


def test_chunks_takes_a_slice_and_merges_once_none_is_missing(module: str) -> None:
    first = _invoke(module, "run", "tiny", "--chunks", "0:2")
    assert first.stdout.splitlines()[-1] == (
        "nothing merged yet, 1 of 3 chunks missing or not recorded: 000000000016 (--chunks 2:3); "
        f"`extraction-assets --module {module} run tiny --missing` does the rest"
    )
    rest = _invoke(module, "run", "tiny", "--missing")
    assert "1 chunk, 2 merges" in rest.output


def test_chunks_whose_events_are_lost_are_not_called_missing_but_recorded(
    ran_module: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a process was killed between a file and its event."""
    assert "not recorded" not in _invoke(ran_module, "status", "tiny").output
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "forgetful"))
    output = _invoke(ran_module, "status", "tiny").output
    command = f"`extraction-assets --module {ran_module} run tiny --missing`"
    (line,) = (line for line in output.splitlines() if line.startswith("relu/top_k_table"))
    assert line.split()[1:] == ["3", "0", "0"]
    keys = "000000000000, 000000000008, 000000000016"
    sentence = f"3 of 3 chunks on disk but not recorded in Dagster: {keys} (--chunks 0:3); {command} records them"
    assert output.splitlines()[-1] == sentence, "after the table"
    first = _invoke(ran_module, "run", "tiny", "--missing", "--chunks", "0:1")
    assert f"2 of 3 chunks missing or not recorded: {keys[14:]} (--chunks 1:3); {command} does the rest" in first.output
    assert "0 chunks computed, 2 recorded, 2 merges: " in _invoke(ran_module, "run", "tiny", "--missing").output


def test_after_a_change_and_back_status_says_that_other_settings_are_recorded(
    ran_module: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = declare(monkeypatch, make_settings(tiny_folder, top_k_examples=3))
    _invoke(other, "run", "tiny", "--chunks", "0:1")
    module = declare(monkeypatch, make_settings(tiny_folder))
    assert _invoke(module, "status", "tiny").output.splitlines()[-1] == (
        "1 of 3 chunks on disk but last recorded in Dagster with other settings: 000000000000 (--chunks 0:1); "
        f"`extraction-assets --module {module} run tiny --missing` records them again"
    )


def test_status_gives_the_numbers_of_chunks_without_a_table(ran_module: str, home: Path) -> None:
    for key in ("000000000000", "000000000016"):
        next(home.glob(f"tiny/relu/top_k_table/{key}-*.parquet")).unlink()
    lines = _invoke(ran_module, "status", "tiny").output.splitlines()
    assert "without a current table: 000000000000, 000000000016 (--chunks 0:1, 2:3)" in lines


def test_what_is_left_names_the_run_that_works_on_it(module: str, home: Path) -> None:
    _invoke(module, "list")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        selection = frozenset({dg.AssetKey(["tiny", "corpus"])})
        run = dg.DagsterRun("a", status=dg.DagsterRunStatus.STARTED, asset_selection=selection)
        instance.add_run(run)
    output = _invoke(module, "run", "tiny", "--chunks", ":2").stdout
    assert output.endswith(f"does the rest, but run {run.run_id} works on tiny now: wait for it\n")


def test_missing_leaves_merges_and_directions_alone_that_are_current(ran_module: str, home: Path) -> None:
    again = _invoke(ran_module, "run", "tiny", "--missing")
    assert "merge of relu is current\nmerge of topk is current\n" in again.stderr
    assert "directions of relu are current\ndirections of topk are current\n" in again.stderr
    assert "0 chunks, 0 merges: " in again.stdout
    assert re.search(r"^relu/feature_directions +computed [-0-9]+ [:0-9]+ UTC$", _status(ran_module), re.MULTILINE)
    _invoke(ran_module, "delete", "tiny", "--sae", "relu", "--yes")
    assert re.search(r"^relu/feature_directions +not computed yet$", _status(ran_module), re.MULTILINE)
    again = _invoke(ran_module, "run", "tiny", "--missing")
    assert "3 chunks, 1 merge: " in again.stdout
    assert "directions of relu\ndirections of topk are current\n" in again.stderr


def _status(module: str) -> str:
    return _invoke(module, "status", "tiny").output


def test_missing_writes_a_report_again_that_is_gone(ran_module: str, home: Path) -> None:
    report = home / "tiny" / "topk" / "feature_report" / "report.html"
    report.unlink()
    again = _invoke(ran_module, "run", "tiny", "--missing")
    assert f"{report} is not there; the report is written again" in again.stderr
    assert "0 chunks, 0 merges: " in again.stdout
    assert report.is_file()
    assert "1 chunk, 2 merges: " in _invoke(ran_module, "run", "tiny", "--chunks", "0:1").stdout


def test_directions_that_fail_leave_everything_else_there(
    module: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CheckpointError("the head is damaged")

    monkeypatch.setattr("extraction_assets.assets.directions.run.compute_directions", refuse)
    result = _invoke(module, "run", "tiny")
    assert result.exit_code == 1
    assert "what the features write is not known, all else is there: the head is damaged\n" in result.stderr
    assert "3 chunks, 2 merges: " in result.stdout
    assert (home / "tiny" / "topk" / "feature_report" / "report.html").is_file()


def test_show_of_what_is_merged_but_not_declared_any_more(
    ran_module: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, make_settings(tiny_folder, name="other"))
    assert "feature 3" in _invoke(ran_module, "show", "tiny", "3", "--sae", "topk").output
    assert _invoke(ran_module, "show", "nope").output == "Error: no extraction 'nope'; there are: other, tiny\n"


def test_missing_reads_what_is_stored_upstream(ran_module: str, home: Path) -> None:
    next(home.glob("tiny/relu/top_k_table/000000000008-*.parquet")).unlink()
    result = _invoke(ran_module, "run", "tiny", "--missing")
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


def test_show_prints_examples_in_context(ran_module: str) -> None:
    result = _invoke(ran_module, "show", "tiny", "--sae", "topk", "--limit", "2", "--features", "1")
    assert result.exit_code == 0, result.output
    heading, *examples = result.output.split("\n")[:-2]
    assert heading.startswith("feature ")
    assert len(examples) == 2
    assert all(re.search(r"^ +[0-9.]+  .*\[.+\].*\.txt, sample [0-9]+$", line) for line in examples)


def test_names_of_files_and_folders_are_shown_and_not_obeyed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "a\x1b]0;title\x07\r\nError: forged\u202e"
    settings = make_settings(tmp_path / hostile)
    for path in (tmp_path / hostile / "texts").iterdir():
        path.rename(path.with_name(f"{hostile}{path.name}"))
    module = declare(monkeypatch, settings)
    outputs = [
        CliRunner().invoke(cli.main, ["--module", module, *command], color=True).output
        for command in (["run", "tiny"], ["show", "tiny", "--sae", "topk"], ["list"], ["check", "tiny"])
    ]
    (tmp_path / hostile / "relu" / "cfg.json").write_text("[]")
    outputs.append(_invoke(module, "check", "tiny").output)
    for output in outputs:
        assert r"a\x1b]0;title\x07␍⏎Error: forged\u202e" in output
        assert "\x1b]" not in output
        assert "\u202e" not in output
        assert not [line for line in output.splitlines() if line.startswith("Error: forged")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "no extraction 'nothing'; declared are: tiny"),
        (["status", "nothing"], "no extraction 'nothing'"),
        (["show", "nothing"], "no extraction 'nothing'; there are: tiny"),
        (["show", "tiny"], "no merged results of extraction 'tiny': run it first"),
        (["run", "tiny", "--chunks", "a:b"], "--chunks takes A:B with whole numbers"),
        (["run", "tiny", "--chunks", "7:9"], "holds none of the 3 chunks"),
        (["run", "tiny", "--chunks", "000000000009"], "--chunks takes A:B with whole numbers"),
        (["run", "tiny", "--chunks", "000000000009:"], "no chunk is called 000000000009; the first are 000000000000, "),
        (
            ["run", "tiny", "--vectorization-batch-size", "banana"],
            "'auto' or a whole number of at least 1, got 'banana'",
        ),
        (["run", "tiny", "--device", "cuda:77"], "device 'cuda:77' is configured, but torch sees"),
        (["run", "tiny", "--device", "banana"], "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'banana'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence(module: str, arguments: list[str], message: str) -> None:
    result = _invoke(module, *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert "Traceback" not in result.output
    # click's two lines of usage, an empty one, and the sentence
    assert len(result.output.splitlines()) in (1, 4), result.output


@pytest.mark.parametrize("device", ["cuda:77", "banana"])
def test_a_wrong_device_is_refused_before_the_corpus_runs(module: str, home: Path, device: str) -> None:
    _invoke(module, "run", "tiny", "--device", device)
    assert not (home / "corpora").exists()


def test_a_wrong_device_of_the_modules_own_resource_is_refused_before_the_corpus_runs(module: str, home: Path) -> None:
    from extraction_assets.resources import GpuResource

    sys.modules[module].defs.resources["gpu"] = GpuResource(device="cuda:77")
    assert "'cuda:77'" in _invoke(module, "run", "tiny").output
    assert not (home / "corpora").exists()


def test_a_reader_that_has_had_enough_ends_the_command_silently(ran_module: str, tiny_folder: Path, home: Path) -> None:
    command = (
        "import sys; from extraction_assets.cli import show, app; from extraction_assets.database import connect\n"
        "import click\n"
        "@app.main.command()\n"
        "def shown():\n"
        f"    engine = connect.open_database('sqlite:///{home}/results.sqlite')\n"
        "    for _ in range(1000): show.show_features(engine, 'tiny', None, 'topk', 5, 12)\n"
        "app.main(['shown'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"feature ")
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert errors == b""
    assert process.returncode == 1


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
