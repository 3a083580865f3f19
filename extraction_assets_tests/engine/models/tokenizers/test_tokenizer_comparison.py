"""What the class of a model's type would change is a warning with an example."""

import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken

from extraction_assets.engine.findings import Finding
from extraction_assets.engine.models.tokenizers.comparison import PROBES, compare_readings
from extraction_assets.engine.models.tokenizers.tokenizer import TokenizerChoice, read_tokenizer
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.tokenizer_folders import byte_level, make_folder, unigram, wordpiece

OWN_CLASS = """
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast


class OwnTokenizer(PreTrainedTokenizerFast):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        self.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
"""


def compare(folder: Path, *texts: str, choice: TokenizerChoice = "file") -> list[Finding]:
    return compare_readings(local(folder), read_tokenizer(local(folder), choice), choice, texts)


def test_an_example_of_the_corpus_shows_both_readings(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, byte_level(), "qwen2")
    [found] = compare(folder, "none here", "it was\nin 2024, they say")
    assert found.severity == "warning"
    assert "Qwen2Tokenizer tokenizes 1 of 2 texts of the corpus" in found.message
    assert "'2024,' ('202|4|,' by the file, '2|0|2|4|,' by Qwen2Tokenizer)" in found.message
    assert "the file is used, corpus.tokenizer: transformers takes the other" in found.message


def test_the_other_choice_is_reported_the_other_way_round(tmp_path: Path) -> None:
    [found] = compare(make_folder(tmp_path, byte_level(), "qwen2"), choice="transformers")
    assert f"of {len(PROBES)} fixed probes" in found.message
    assert "the class is used, corpus.tokenizer: file takes the other" in found.message


def test_case_is_such_a_difference(tmp_path: Path) -> None:
    [found] = compare(make_folder(tmp_path, wordpiece(), "bert"), "Hello World")
    assert "'Hello' (" in found.message
    assert "by BertTokenizer" in found.message


def test_a_prefix_is_such_a_difference(tmp_path: Path) -> None:
    [found] = compare(make_folder(tmp_path, unigram(), "t5"), "dog")
    assert "'dog' ('dog' by the file, ' dog' by T5Tokenizer)" in found.message


def test_readings_that_agree_are_not_mentioned(tmp_path: Path) -> None:
    assert compare(make_folder(tmp_path, byte_level(), "llama"), "in 2024") == []


def test_a_class_that_cannot_read_the_files_is_mentioned(tmp_path: Path) -> None:
    [found] = compare(make_folder(tmp_path, byte_level(), "t5"), "in 2024")
    assert found.severity == "warning"
    assert "it is not compared with the class of transformers, which fails (" in found.message


def test_files_that_contradict_one_another_are_named(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool>")])
    number = tokenizer.token_to_id("<tool>")
    added = {str(number + 7): {"content": "<tool>", "special": False}}
    [found] = compare(make_folder(tmp_path, tokenizer, "llama", {"added_tokens_decoder": added}))
    assert f"gives the token '<tool>' the id {number + 7}, but beside tokenizer.json it has {number}" in found.message


def test_a_role_whose_token_tokenizer_json_does_not_hold_is_named(tmp_path: Path) -> None:
    tokenizer = byte_level()
    [found] = compare(make_folder(tmp_path, tokenizer, "llama", {"bos_token": "<begin>"}))
    assert "name '<begin>' as bos_token, but tokenizer.json does not hold it" in found.message
    assert f"it is given the id {tokenizer.get_vocab_size()}" in found.message


def test_a_trusted_class_that_comes_with_the_tokenizer_is_used_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    mapped = {"auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}, "tokenizer_class": "OwnTokenizer"}
    folder = make_folder(tmp_path / "own", byte_level(), "llama", mapped)
    (folder / "own.py").write_text(OWN_CLASS)
    tokenizer = read_tokenizer(local(folder, trust_remote_code=True))
    [found] = compare_readings(local(folder, trust_remote_code=True), tokenizer, "file", ["2024"])
    assert "'2024' ('202|4' by the file, '2|0|2|4' by OwnTokenizer)" in found.message
    assert "the class comes with the tokenizer, is trusted and is used" in found.message
