"""Checks of each chunk: recorded with it, executed alone, and those that fail it."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.assets.chunks.checks import CHUNK_CHECKS, MATCHES_LEGACY, RECONSTRUCTS
from extraction_assets.engine.chunk_pass import reconstruction, selecting
from extraction_assets.execution.keys import sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.assets.chunks.conftest import Done
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow


def test_checks_are_recorded_for_each_chunk(done: Done) -> None:
    project, result = done
    evaluations = result.get_asset_check_evaluations()
    assert {(e.partition, e.asset_key.path[1], e.check_name) for e in evaluations} == {
        (key, sae, name)
        for key in project.settings.chunk_keys
        for sae in project.settings.saes
        for name in (
            "vectorized_matches_legacy",
            "sae_reconstructs_activations",
            "sae_is_sparse",
            "bos_does_not_dominate",
        )
    }
    assert all(e.passed for e in evaluations)
    assert all(e.metadata["pairs_compared"].value > 0 for e in evaluations if "legacy" in e.check_name)


def _table_checks(project: Project, sae: str) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(sae_key(project.settings, sae, "top_k_table"), name) for name in CHUNK_CHECKS]


def test_checks_executed_alone_tell_again_what_every_stored_chunk_says(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.chunks(0, 1)
    monkeypatch.setattr(chunk_run, "compute_chunk", lambda *_: pytest.fail("a chunk was computed"))
    result = project.checks_alone(_table_checks(project, "relu"))
    assert {(e.partition, e.check_name, e.passed) for e in result.get_asset_check_evaluations()} == {
        (key, name, True) for key in project.settings.chunk_keys[:2] for name in CHUNK_CHECKS
    }


def test_a_check_that_was_recorded_as_failed_fails_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.chunks(0, 0)
    record = {"checks": {MATCHES_LEGACY: False}, "variance_explained": 0.1}
    monkeypatch.setattr(ChunkStore, "record", lambda *_: record)
    with pytest.raises(dg.DagsterError, match=r"failed.*\n.*vectorized_matches_legacy"):
        project.checks_alone(_table_checks(project, "topk")[:1])


def test_one_check_executed_alone_on_one_partition_tells_of_that_one(project: Project) -> None:
    project.chunks()
    tags = {"dagster/partition": "000000000008"}
    (evaluation,) = project.checks_alone(_table_checks(project, "topk")[:1], tags).get_asset_check_evaluations()
    assert evaluation.partition == "000000000008"


def test_checks_executed_alone_before_any_chunk_is_stored_say_so(project: Project) -> None:
    with pytest.raises(dg.Failure, match=r"no chunk of tiny/relu/top_k_table is stored, so there is nothing to check"):
        project.checks_alone(_table_checks(project, "relu"))


def test_the_log_of_a_run_of_chunks_misses_no_output(done: Done) -> None:
    project, result = done
    messages = [entry.user_message for entry in project.instance.all_logs(result.run_id)]
    assert any("Started execution" in message for message in messages)
    assert not [message for message in messages if "did not yield" in message]


def test_an_sae_that_explains_too_little_fails_the_chunk_and_stores_nothing(done: Done, tmp_path: Path) -> None:
    """A later chunk: what is wrong with the first one is found before any chunk."""
    (project, result), name = done, "sae_reconstructs_activations"
    of_topk = [e for e in result.get_asset_check_evaluations() if e.check_name == name and "topk" in e.asset_key.path]
    first, second, _ = (float(one.metadata["variance_explained"].value) for one in of_topk)
    assert first > second
    values = project.settings.model_dump()
    values["saes"]["topk"]["minimum_variance_explained"] = (first + second) / 2
    strict = Project(type(project.settings).model_validate(values), tmp_path / "strict")
    strict.corpus()
    with pytest.raises(dg.Failure, match=r"sae_reconstructs_activations failed for chunk 000000000008 of tiny/topk"):
        strict.chunks()
    assert strict.plan.missing_chunks() == ["000000000008", "000000000016"]
    assert not [path for path in strict.files("tiny/**/*") if "000000000008" in path]


def test_a_chunk_of_next_to_no_tokens_says_that_it_has_nothing_to_judge_by(tiny_folder: Path, tmp_path: Path) -> None:
    project = Project(_tokens(tiny_folder, tmp_path, [*range(5, 21)], [*range(30, 46)], [7]), tmp_path / "home")
    project.corpus()
    found = [e for e in project.chunks().get_asset_check_evaluations() if e.check_name == RECONSTRUCTS]
    assert {e.description for e in found if e.partition == "000000000002"} == {
        "nothing to judge by: 1 positions of the first samples count"
    }
    assert all(e.passed for e in found)


@pytest.mark.parametrize("last", [7, 0], ids=["one token", "no token that counts"])
def test_a_chunk_of_next_to_no_tokens_can_be_run_alone(tiny_folder: Path, tmp_path: Path, last: int) -> None:
    """As in a retry, or where chunks are run one by one."""
    project = Project(_tokens(tiny_folder, tmp_path, [*range(5, 21)], [*range(30, 46)], [last]), tmp_path / "home")
    project.corpus()
    assert project.chunks(0, 0).success
    assert project.chunks(1, 1).success
    assert project.plan.missing_chunks() == []


def test_a_chunk_whose_activations_do_not_vary_fails(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction.VarianceExplained, "value", lambda _: torch.tensor(float("nan")))
    monkeypatch.setattr(chunk_run, "examine_start", lambda *_: None)
    project = Project(_tokens(tiny_folder, tmp_path, *[[*range(5, 21)]] * 4), tmp_path / "home")
    project.corpus()
    with pytest.raises(dg.Failure, match="32 positions of the first samples count, and the activations do not vary"):
        project.chunks()


def _tokens(tiny_folder: Path, folder: Path, *documents: list[int]) -> ExtractionSettings:
    """An extraction of tokenized documents, one a sample, two in a chunk."""
    file = folder / "tokens.jsonl"
    file.write_text("".join(json.dumps({"ids": ids}) + "\n" for ids in documents))
    corpus = {"source": str(file), "max_length": 16, "token_column": "ids"}
    return make_settings(tiny_folder, corpus=corpus, evaluation_samples=len(documents), chunk_size=2)


def _too_strong(rows: Any) -> Any:
    return rows._replace(max_activation=rows.max_activation * 2)


def test_a_wrong_selection_fails_the_legacy_check(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = selecting.select_top_k
    monkeypatch.setattr(selecting, "select_top_k", lambda *args: _too_strong(right(*args)))
    project = Project(make_settings(tiny_folder, statistics="basic"), tmp_path / "home")
    project.corpus()
    with pytest.raises(dg.Failure, match="vectorized_matches_legacy failed"):
        project.chunks()


@pytest.mark.parametrize("wrong", [0, 1], ids=["table", "draws"])
def test_a_wrong_table_or_wrong_draws_of_one_selection_fail_the_legacy_check(
    project: Project, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    right = selecting.select_with_draws

    def one_too_strong(*args: Any) -> Any:
        selected = list(right(*args))
        selected[wrong] = _too_strong(selected[wrong])
        return tuple(selected)

    monkeypatch.setattr(selecting, "select_with_draws", one_too_strong)
    with pytest.raises(dg.Failure, match="vectorized_matches_legacy failed"):
        project.chunks()
