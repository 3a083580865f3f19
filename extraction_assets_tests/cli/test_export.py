"""``export``: what the command writes and says, and what it refuses in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from extraction_assets_tests.command import declare, invoke
from extraction_assets_tests.exports.written import json_lines
from extraction_assets_tests.project import Project

Export = Callable[..., Result]


@pytest.fixture
def export(project: Project, monkeypatch: pytest.MonkeyPatch) -> Export:
    """``export tiny --sae relu`` with more arguments."""
    module = declare(monkeypatch, project.settings)
    return lambda *arguments: invoke(module, "export", "tiny", "--sae", "relu", *arguments)


def test_it_writes_all_features_and_says_where(export: Export, tmp_path: Path) -> None:
    result = export("--format", "jsonl", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'out'}  48 features, 2 files written" in result.output
    assert len(json_lines(tmp_path / "out" / "batch-0.jsonl.gz")) == 48


def test_it_says_when_all_is_there(export: Export, tmp_path: Path) -> None:
    for said in ("2 files written", "all of it was there"):
        assert said in export("--format", "jsonl", "--out", str(tmp_path / "out")).output


def test_it_writes_the_chosen_features_alone(export: Export, tmp_path: Path) -> None:
    assert export("--format", "jsonl", "--out", str(tmp_path / "out"), "--features", "7,#3").exit_code == 0
    assert [line["neuron_index"] for line in json_lines(tmp_path / "out" / "batch-0.jsonl.gz")] == [3, 7]


def test_options_reach_the_format(export: Export, tmp_path: Path) -> None:
    options = ("--option", "model-id=pup", "--option", "source_set=res")
    assert export("--format", "neuronpedia", "--out", str(tmp_path / "out"), *options).exit_code == 0
    features = json_lines(tmp_path / "out" / "pup" / "0-res" / "features" / "batch-0.jsonl.gz")
    assert all(one["hasVector"] and len(one["vector"]) == 16 for one in features)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "jsonl", "--out", "http://host/x"), "http://host/x is no folder"),
        (("--format", "jsonl", "--out", ""), "'' is no folder: give the path of one, or a URL"),
        (("--format", "jsonl", "--out", " "), "' ' is no folder"),
        (("--format", "jsonl", "--out", "file://host/x"), "names another machine, host: give file:///folder"),
        (("--format", "jsonl", "--out", "s3:/x"), "s3:/x begins as a URL, but is not one: give s3://…"),
        (("--format", "jsonl", "--out", "/proc/nope"), "/proc/nope cannot be written into (No such file or directory)"),
        (("--format", "jsonl", "--out", "y" * 300), "cannot be written into (File name too long): give another folder"),
        (("--format", "xml", "--out", "x"), "'xml' is not one of 'jsonl'"),
        (("--format", "jsonl", "--out", "x", "--features", "48"), "no feature 48: features are numbered from 0 to 47"),
        (("--format", "jsonl", "--out", "x", "--features", "a"), "'a' is not a list of features"),
        (("--format", "jsonl", "--out", "x", "--option", "a"), "'a' is not of the form KEY=VALUE"),
        (("--format", "jsonl", "--out", "x", "--option", "a=b"), "the export jsonl has no option 'a': it has none"),
        (("--format", "neuronpedia", "--out", "x", "--option", "a=b"), "it has model_id, source_set, layer"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence_and_nothing_is_written(
    export: Export, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    result = export(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output
    assert not [path for path in tmp_path.iterdir() if path.name not in before]


def test_an_sae_that_is_not_merged_is_named(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = declare(monkeypatch, project.settings)
    result = invoke(module, "export", "tiny", "--sae", "none", "--format", "jsonl", "--out", str(tmp_path / "out"))
    assert "choose one SAE of extraction 'tiny': relu, topk (not 'none')" in result.output
    assert not (tmp_path / "out").exists()


def test_several_saes_are_refused_where_a_folder_holds_one(export: Export, tmp_path: Path) -> None:
    result = export("--sae", "topk", "--format", "jsonl", "--out", str(tmp_path / "out"))
    assert "a folder of jsonl holds one SAE: export tiny/relu into one of its own" in result.output
    assert not (tmp_path / "out").exists()


def test_saes_without_a_name_are_exported_together_where_a_folder_holds_several(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = declare(monkeypatch, project.settings)
    command = ("export", "tiny", "--format", "circuit-tracer", "--out", str(tmp_path / "out"))
    result = invoke(module, *command)
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.output.splitlines() if "written" in line] == ["relu:", "topk:"]
    assert {path.name for path in (tmp_path / "out" / "features").glob("*.bin")} == {"layer_0.bin", "layer_1.bin"}
