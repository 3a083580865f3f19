"""A corpus is current where this version would make the same of it."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from extraction_assets.engine.corpora.packing import PackedSample
from extraction_assets.planning import plan
from extraction_assets.planning.plan import ExtractionPlan, corpus_recipe, has_recipe
from extraction_assets.planning.tokenization import tokenizer_fingerprint, tokenizer_fingerprint_of_rules_1
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.engine.corpora.build import write_jsonl
from extraction_assets_tests.own_code import change_json
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, whose class and file agree."""
    return shutil.copytree(tiny_folder / "model", tmp_path / "model")


def made(model: Path, tiny_folder: Path, count: int = 10, **corpus: Any) -> ExtractionSettings:
    source = {"source": str(tiny_folder / "texts"), "max_length": 16, **corpus}
    path = {"path": str(model)}
    return make_settings(tiny_folder, language_model=path, corpus=source, evaluation_samples=count)


def as_of_rules_1(settings: ExtractionSettings, home: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The corpus with the recipe that an earlier version wrote."""
    project = Project(settings, home)
    with monkeypatch.context() as earlier:
        earlier.setattr(plan, "tokenizer_fingerprint", tokenizer_fingerprint_of_rules_1)
        project.corpus()
    return project


def recorded(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.home / "tiny" / "corpus.json").read_text())
    return {name: value for name, value in found.items() if name != "checksum"}


# The fingerprint


@pytest.mark.parametrize("name", ["bpe.codes", "spm.model", "chat_template.jinja", "vocab.bpe", "a.tiktoken", "x.json"])
def test_every_small_file_has_a_part_in_it(model: Path, tiny_folder: Path, name: str) -> None:
    settings = made(model, tiny_folder)
    before = tokenizer_fingerprint(settings)
    (model / name).write_text("{}")
    with_it = tokenizer_fingerprint(settings)
    (model / name).write_text("[]")
    assert len({before, with_it, tokenizer_fingerprint(settings)}) == 3


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "pytorch_model.bin", "model.gguf", "figure.png", ".hidden"])
def test_documents_weights_and_images_have_none(model: Path, tiny_folder: Path, name: str) -> None:
    settings = made(model, tiny_folder)
    before = tokenizer_fingerprint(settings)
    (model / name).write_text("{}")
    assert tokenizer_fingerprint(settings) == before


def test_the_models_configuration_has_one_where_it_chooses_the_class(model: Path, tiny_folder: Path) -> None:
    by_file, by_class = made(model, tiny_folder), made(model, tiny_folder, tokenizer="transformers")
    before = [corpus_recipe(settings) for settings in (by_file, by_class)]
    change_json(model / "config.json", model_type="qwen2")
    after = [corpus_recipe(settings) for settings in (by_file, by_class)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]
    assert before[0] != before[1]


# Corpora of earlier versions


def test_a_corpus_that_would_be_the_same_is_kept_and_noted_as_of_today(
    model: Path, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = as_of_rules_1(made(model, tiny_folder), home, monkeypatch)
    before = recorded(project)
    assert before["recipe"] != corpus_recipe(project.settings)
    assert len(project.plan.corpus) == 10
    monkeypatch.setattr("extraction_assets.assets.corpus.run._tokenize", lambda *_: pytest.fail("tokenized again"))
    project.corpus()
    assert recorded(project) == {**before, "recipe": corpus_recipe(project.settings)}


def stale(project: Project) -> bool:
    try:
        ExtractionPlan(project.settings, ChunkStore(project.home))
    except plan.CorpusNotReady:
        return True
    return False


def test_one_whose_tokens_the_class_made_otherwise_is_stale(
    model: Path, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_json(model / "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer")
    change_json(model / "config.json", model_type="qwen2")
    assert stale(as_of_rules_1(made(model, tiny_folder), home, monkeypatch))


def test_one_whose_special_tokens_had_to_have_a_role_is_stale(
    model: Path, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<|eot|>", special=True)])
    tokenizer.save(str(model / "tokenizer.json"))
    assert stale(as_of_rules_1(made(model, tiny_folder), home, monkeypatch))


def pack_documents_of_rules_1(documents: Iterable[np.ndarray], length: int, bos: int | None) -> Iterator[PackedSample]:
    prefix = [] if bos is None else [bos]
    for number, ids in enumerate(documents):
        for first in range(0, len(ids), length - len(prefix)):
            yield PackedSample(np.array([*prefix, *ids[first : first + length - len(prefix)]]), number, first)


@pytest.mark.parametrize("corpus", [{}, {"prepend_bos": False}, {"packing": "concatenated"}], ids=str)
def test_one_whose_documents_began_with_bos_is_stale(
    model: Path, tiny_folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: dict[str, Any]
) -> None:
    rows = [{"text": f"<|endoftext|>the quick brown fox {number}"} for number in range(9)]
    source = str(write_jsonl(tmp_path / "a.jsonl", rows))
    monkeypatch.setattr("extraction_assets.engine.corpora.document_tokens._without_leading", lambda ids, _: ids)
    monkeypatch.setattr("extraction_assets.engine.corpora.tokenize.pack_documents", pack_documents_of_rules_1)
    settings = made(model, tiny_folder, 5, source=source, **corpus)
    project = as_of_rules_1(settings, home, monkeypatch)
    monkeypatch.undo()
    assert stale(project)
    project.corpus()
    arrays = project.plan.corpus.arrays
    doubled = (arrays.token_ids[:, :2] == 0).all(axis=1)
    assert not doubled.any()
    assert (arrays.token_ids[:, 0] == 0).all() == (corpus.get("prepend_bos") is not False)


def test_tokens_that_stay_as_they_are_stay_current(
    model: Path, tiny_folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(write_jsonl(tmp_path / "a.jsonl", [{"ids": [0, 0, 5, 6, 7]}] * 9))
    project = as_of_rules_1(made(model, tiny_folder, 5, source=source, token_column="ids"), home, monkeypatch)
    assert project.plan.corpus.arrays.token_ids[0, :5].tolist() == [0, 0, 5, 6, 7]


def test_a_file_that_earlier_versions_did_not_hash_makes_a_corpus_stale(
    model: Path, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "bpe.codes").write_text("a b 1")
    assert stale(as_of_rules_1(made(model, tiny_folder), home, monkeypatch))


def test_one_of_other_settings_is_stale(
    model: Path, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = as_of_rules_1(made(model, tiny_folder), home, monkeypatch)
    current = ChunkStore(home).current_corpus("tiny")
    assert current is not None
    assert has_recipe(current, project.settings)
    assert has_recipe(current, made(model, tiny_folder, tokenizer="transformers"))  # which it was
    assert not has_recipe(current, made(model, tiny_folder, prepend_bos=False))
