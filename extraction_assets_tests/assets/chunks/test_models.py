"""Extractions from models and hooks of every kind, as assets."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.planning.plan import corpus_recipe
from extraction_assets.stores.chunk_files import read_activations
from extraction_assets_tests.own_code import make_own_model
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def own_model(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_own_model(tiny_folder / "model", tmp_path / "own", monkeypatch)


def _settings(tiny_folder: Path, model: Path, hook: str = "layers.0", **language_model: Any) -> Any:
    common = {"hook": hook, "minimum_variance_explained": -1e9}
    saes = {
        "relu": {"path": str(tiny_folder / "relu"), **common},
        "topk": {"path": str(tiny_folder / "topk"), **common},
    }
    saes["topk"]["hook"] = "layers.1.input"
    return make_settings(
        tiny_folder, language_model={"path": str(model), **language_model}, saes=saes, evaluation_samples=10
    )


def test_an_untrusted_model_fails_at_once_and_says_what_to_set(tiny_folder: Path, home: Path, own_model: Path) -> None:
    with pytest.raises(dg.Failure) as caught:
        Project(_settings(tiny_folder, own_model), home).corpus()
    assert "set language_model.trust_remote_code to true" in str(caught.value.description)
    assert caught.value.allow_retries is False


def test_a_trusted_model_runs_from_corpus_to_examples(tiny_folder: Path, home: Path, own_model: Path) -> None:
    project = Project(_settings(tiny_folder, own_model, trust_remote_code=True), home).merged()
    plan = project.plan
    key = plan.settings.chunk_keys[0]
    stored, _ = read_activations(
        plan.chunk_path("model_activations", plan.settings.chunk(key)),
        plan.activations_fingerprint(plan.settings.chunk(key)),
    )
    assert set(stored) == {"layers.0", "layers.1.input"}
    assert torch.equal(stored["layers.0"], stored["layers.1.input"])  # one tensor, by either name
    [(examples,)] = project.rows("select count(*) from feature_activations")
    assert examples > 0


def test_trusted_code_is_part_of_what_chunks_and_corpus_are_made_from(
    tiny_folder: Path, own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions(trusted: bool) -> list[str]:
        settings = _settings(tiny_folder, own_model, trust_remote_code=trusted)
        return [corpus_recipe(settings), CodeVersions(settings).of("top_k_table", "relu")]

    untrusted, before = versions(False), versions(True)
    with (own_model / "own_llama.py").open("a") as code:
        code.write("# another version\n")
    assert versions(False) == untrusted
    assert not set(versions(True)) & set(before)
