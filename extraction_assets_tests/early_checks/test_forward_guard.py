"""`check` and every run that computes a forward pass compare samples of the first batch with themselves alone."""

import logging
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from transformers import AutoModel, FNetConfig

from extraction_assets.assets.chunks import start as run_start
from extraction_assets.early_checks.extraction import Machine, examine_extraction
from extraction_assets.engine.models import padding_check
from extraction_assets.execution.keys import activations_key, sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import D_MODEL, make_settings


def fourier(tiny_folder: Path, folder: Path) -> ExtractionSettings:
    """The tiny extraction with an FNet, whose Fourier transform runs over padding too."""
    shutil.copytree(tiny_folder / "model", folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": D_MODEL, "intermediate_size": 32, "num_hidden_layers": 2}
    AutoModel.from_config(FNetConfig(**sizes, max_position_embeddings=64)).save_pretrained(folder)
    changed = make_settings(tiny_folder).model_dump()
    changed["saes"]["relu"]["hook"], changed["saes"]["topk"]["hook"] = "encoder.layer.0", "encoder.layer.1"
    texts = folder.with_name("short_texts")
    texts.mkdir()
    for number, words in enumerate((3, 9, 30)):
        (texts / f"{number}.txt").write_text("the lazy dog sleeps " * words)
    corpus = {**changed["corpus"], "source": str(texts), "max_length": 64}
    saes, model = changed["saes"], {"path": str(folder)}
    return make_settings(
        tiny_folder, saes=saes, language_model=model, corpus=corpus, evaluation_samples=3, chunk_size=2
    )


MESSAGE = r"hook 'encoder.layer.\d' of FNetModel gives other numbers for sample"


@pytest.mark.slow
@pytest.mark.parametrize("asset", ["model_activations", "top_k_table"])
def test_a_run_of_a_model_that_reads_padding_stops_before_its_first_chunk(
    asset: str, tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    project = Project(fourier(tiny_folder, tmp_path / "fnet"), home)
    project.corpus()
    activations = activations_key(project.settings)
    key = activations if asset == "model_activations" else sae_key(project.settings, "relu", asset)
    with pytest.raises(dg.Failure, match=MESSAGE):
        project.chunks(assets=[key])
    assert list(project.files("tiny/**/*")) == ["tiny/corpus.json"]


def test_check_says_so(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    settings = fourier(tiny_folder, tmp_path / "fnet")
    machine = Machine(torch.device("cpu"), "high", ChunkStore(home), None)
    found = examine_extraction(settings, machine, logging.getLogger(__name__))
    errors = [one.message for one in found.findings if one.severity == "error"]
    assert len(errors) == 2
    assert all("in a padded batch than for it alone" in message for message in errors)


def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The hooks of every comparison that follows."""
    calls = list[tuple[str, ...]]()

    def examine(model: Any, samples: Any, outputs: Any) -> Any:
        calls.append(tuple(outputs))
        return padding_check.examine_alone(model, samples, outputs)

    monkeypatch.setattr(run_start, "examine_alone", examine)
    return calls


@pytest.mark.slow
def test_a_run_compares_once_and_only_where_it_computes_a_forward_pass(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, calls = Project(make_settings(tiny_folder), home), compared(monkeypatch)
    project.corpus()
    activations = activations_key(project.settings)
    project.chunks(0, 1, assets=[activations])
    assert calls == [("layers.0", "layers.1")]
    project.chunks(0, 1, assets=[sae_key(project.settings, "relu", "top_k_table")])  # from stored activations
    assert len(calls) == 1
    project.chunks(0, 2, assets=[sae_key(project.settings, "relu", "top_k_table")])  # of the last chunk none are stored
    assert calls[1:] == [("layers.0",)]
    project.chunks(2, 2)
    assert len(calls) == 3


@pytest.mark.slow
def test_warnings_of_the_comparison_are_logged(tokenized: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("not at this length")

    monkeypatch.setattr("extraction_assets.engine.models.language_model.LanguageModel.activations_alone", fail)
    result = tokenized.chunks(0, 0)
    lines = [entry.user_message for entry in tokenized.instance.all_logs(result.run_id)]
    assert [line for line in lines if "no sample could be compared with itself" in line]
