"""An extraction whose model type's class would rebuild the tokenizer otherwise than its file says."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2Model

from extraction_assets.early_checks.extraction import Machine, examine_extraction
from extraction_assets.execution.keys import corpus_key
from extraction_assets.execution.preview import escape
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.engine.corpora.build import write_jsonl
from extraction_assets_tests.engine.models.tokenizer_folders import (
    byte_level,
    make_folder,
    make_sentencepiece,
    sentencepiece_pieces,
)
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import D_MODEL, make_sae, make_settings

pytestmark = pytest.mark.slow

DIFFERENCE = "'2024' ('202|4' by the file, '2|0|2|4' by Qwen2Tokenizer)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 model whose tokenizer.json keeps up to three digits together, with its text and an SAE."""
    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    sizes = {"hidden_size": D_MODEL, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    Qwen2Model(Qwen2Config(vocab_size=400, **sizes, **heads)).save_pretrained(folder / "model")
    config = (folder / "model" / "config.json").read_text()
    make_folder(folder / "model", byte_level(), "qwen2", {"eos_token": "</s>"})
    (folder / "model" / "config.json").write_text(config)
    write_jsonl(folder / "a.jsonl", [{"text": "2024"}] * 30)
    make_sae(folder / "sae")
    return folder


def made(folder: Path, **corpus: Any) -> ExtractionSettings:
    return make_settings(
        folder,
        language_model={"path": str(folder / "model")},
        corpus={"source": str(folder / "a.jsonl"), "max_length": 8, **corpus},
        saes={"a": {"path": str(folder / "sae"), "hook": "layers.0", "minimum_variance_explained": -1e9}},
        evaluation_samples=10,
    )


def tokens(project: Project) -> list[str]:
    arrays = project.plan.corpus.arrays
    tokenizer = load_tokenizer(project.settings)
    assert tokenizer is not None
    return list(tokenizer.convert_ids_to_tokens(arrays.token_ids[0, arrays.attention_mask[0]].tolist()))


@pytest.mark.parametrize(("choice", "expected"), [("file", ["202", "4"]), ("transformers", ["2", "0", "2", "4"])])
def test_the_corpus_has_the_tokens_of_the_choice_and_tells_the_difference(
    folder: Path, home: Path, choice: str, expected: list[str]
) -> None:
    project = Project(made(folder, tokenizer=choice), home)
    result = project.corpus()
    assert tokens(project) == expected
    [event] = result.asset_materializations_for_node("tiny_corpus")
    assert event.asset_key == corpus_key(project.settings)
    assert escape(DIFFERENCE) in str(event.metadata["tokenizer_differences"].value)


def test_the_other_choice_is_another_corpus(folder: Path, home: Path) -> None:
    Project(made(folder), home).corpus()
    other = Project(made(folder, tokenizer="transformers"), home)
    with pytest.raises(ValueError, match="made from other settings"):
        _ = other.plan


@pytest.mark.parametrize("stored", [False, True], ids=["of the source", "of the corpus"])
def test_check_tells_the_difference(folder: Path, home: Path, stored: bool) -> None:
    settings = made(folder)
    if stored:
        Project(settings, home).corpus()
    machine = Machine(torch.device("cpu"), "highest", ChunkStore(home), None)
    found = examine_extraction(settings, machine, logging.getLogger("test"))
    [difference] = [finding for finding in found.findings if "Qwen2Tokenizer" in finding.message]
    assert difference.severity == "warning"
    assert DIFFERENCE in difference.message
    assert not found.fails


def test_a_sentencepiece_model_alone_runs_from_corpus_to_examples(folder: Path, home: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model, config = tmp_path / "model", (tmp_path / "model" / "config.json").read_text()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    path = make_sentencepiece(model, "llama")
    (model / "config.json").write_text(config)
    write_jsonl(tmp_path / "a.jsonl", [{"text": "the lazy dog"}] * 30)
    project = Project(made(tmp_path), home).merged()
    assert tokens(project) == ["<s>", *sentencepiece_pieces(path, "the lazy dog")]
    [(shown,), *_] = project.rows("select tokens from samples order by sample_index")
    assert "".join(json.loads(shown)) == "<s> the lazy dog"


def test_a_choice_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="'file' or 'transformers'"):
        made(folder, tokenizer="fast")


def test_a_folder_without_a_tokenizer_is_named(folder: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text((folder / "model" / "config.json").read_text())
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({}))
    settings = made(folder).model_copy(
        update={"language_model": made(folder).language_model.model_copy(update={"path": str(tmp_path / "model")})}
    )
    with pytest.raises(FileNotFoundError, match="model holds no tokenizer"):
        load_tokenizer(settings)
