"""Tokens are those of tokenizer.json, whatever class transformers has for the model's type."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from extraction_assets.engine.corpora.document_tokens import special_token_ids
from extraction_assets.engine.models.tokenizers.comparison import compare_readings
from extraction_assets.engine.models.tokenizers.tokenizer import TokenizerError, load_tokenizer, read_tokenizer
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.tokenizer_folders import (
    byte_level,
    make_folder,
    make_sentencepiece,
    unigram,
    wordpiece,
)

MODEL_TYPES = [
    *("albert", "bert", "clip", "cohere", "deberta-v2", "falcon", "gemma", "gpt2", "gpt_neox", "llama", "mistral"),
    *("modernbert", "mpnet", "opt", "qwen2", "qwen3", "roberta", "t5", "whisper", "xlm-roberta", "xlnet"),
]
KINDS = {"byte_level": byte_level, "wordpiece": wordpiece, "unigram": unigram}


def pieces(tokenizer: Any, text: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"]))


# The file


def test_digits_are_split_as_the_file_says_and_not_as_the_class_does(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, byte_level(), "qwen2", {"tokenizer_class": "Qwen2Tokenizer"})
    assert pieces(read_tokenizer(local(folder)), "2024") == ["202", "4"]
    assert pieces(read_tokenizer(local(folder), "transformers"), "2024") == ["2", "0", "2", "4"]


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer.json, and what every model type's folder with it gives."""
    tokenizer, folder = KINDS[request.param](), tmp_path_factory.mktemp(request.param)
    loaded = [read_tokenizer(local(make_folder(folder / name, tokenizer, name))) for name in MODEL_TYPES]
    return Tokenizer.from_file(str(folder / MODEL_TYPES[0] / "tokenizer.json")), loaded


@pytest.mark.slow
@given(text=st.text(max_size=40) | st.text("ab 0123456789\n\t éÉe\u0301İß½ﬁ<s>", max_size=40))
def test_every_model_type_gives_the_tokens_of_the_file(kind: Any, text: str) -> None:
    by_file, loaded = kind
    expected = by_file.encode(text, add_special_tokens=False).ids
    assert [one(text, add_special_tokens=False)["input_ids"] == expected for one in loaded] == [True] * len(loaded)


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64, pad_token="<s>")
    folder = make_folder(tmp_path, tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = "the lazy dog ran 100 miles"
    assert read_tokenizer(local(folder))(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text).ids


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral vocabulary so large that transformers looks for its regular expression, asked to replace it."""
    described = json.loads(byte_level().to_str())
    described["model"]["vocab"] |= {f"filler {number}": number for number in range(400, 100_400)}
    folder = tmp_path_factory.mktemp("large")
    make_folder(folder, Tokenizer.from_str(json.dumps(described)), "mistral", {"fix_mistral_regex": True})
    return folder


@pytest.mark.slow
def test_an_option_that_would_put_another_pre_tokenizer_there_is_left_out(large: Path) -> None:
    assert pieces(read_tokenizer(local(large)), "2024") == ["202", "4"]
    assert pieces(read_tokenizer(local(large), "transformers"), "2024") == ["2", "0", "2", "4"]
    [found] = compare_readings(local(large), read_tokenizer(local(large)), "file", ["2024"])
    assert "'2024' ('202|4' by the file, '2|0|2|4' by TokenizersBackend)" in found.message


def test_the_file_of_this_version_of_transformers_is_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, unigram(), "llama", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]})
    byte_level().save(str(folder / "tokenizer.4.0.0.json"))
    assert pieces(read_tokenizer(local(folder)), "2024") == ["202", "4"]


# What the other files add


def test_tokens_that_the_settings_add_are_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level()
    number = tokenizer.get_vocab_size()
    added = {str(number): {"content": "<tool>", "special": False}}
    loaded = read_tokenizer(local(make_folder(tmp_path, tokenizer, "qwen2", {"added_tokens_decoder": added})))
    assert pieces(loaded, "a<tool>b") == ["a", "<tool>", "b"]
    assert number not in special_token_ids(loaded)


def test_tokens_of_the_legacy_file_are_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level()
    folder = make_folder(tmp_path, tokenizer)
    (folder / "added_tokens.json").write_text(json.dumps({"<tool>": tokenizer.get_vocab_size()}))
    assert pieces(read_tokenizer(local(folder)), "a<tool>b") == ["a", "<tool>", "b"]


@pytest.mark.parametrize(("split", "expected"), [(False, ["a", "<s>"]), (True, ["a", "<", "s", ">"])])
def test_special_tokens_in_a_text_are_split_where_the_settings_say_so(
    tmp_path: Path, split: bool, expected: list[str]
) -> None:
    folder = make_folder(tmp_path, byte_level(), "qwen2", {"split_special_tokens": split})
    assert pieces(read_tokenizer(local(folder)), "a<s>") == expected


def test_roles_are_those_of_the_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a", byte_level(), "gpt2", {"bos_token": "<s>", "eos_token": None})
    loaded = read_tokenizer(local(folder))
    assert (loaded.bos_token, loaded.eos_token) == ("<s>", None)
    older = make_folder(tmp_path / "b", byte_level(), "gpt2", {"bos_token": None})
    (older / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    assert (read_tokenizer(local(older)).bos_token, read_tokenizer(local(older)).eos_token) == (None, "</s>")


@pytest.mark.parametrize("named", [{"pad_token": "</s>"}, {"eos_token": "</s>"}])
def test_a_role_that_no_file_names_is_the_classs_whatever_other_roles_are_named(
    tmp_path: Path, named: dict[str, str]
) -> None:
    assert read_tokenizer(local(make_folder(tmp_path, byte_level(), "gpt2", named))).bos_token == "<|endoftext|>"


def test_where_no_file_names_a_role_they_are_the_classs(tmp_path: Path) -> None:
    """GPT-2's files name none, and its BOS token is known all the same."""
    loaded = read_tokenizer(local(make_folder(tmp_path, byte_level(), "gpt2", {"model_max_length": 1024})))
    assert loaded.bos_token == loaded.eos_token == "<|endoftext|>"
    assert pieces(loaded, "2024") == ["202", "4"]


def test_a_role_of_the_class_whose_token_the_file_does_not_hold_is_no_role(tmp_path: Path) -> None:
    tokenizer = byte_level(special_tokens=[])
    assert read_tokenizer(local(make_folder(tmp_path, tokenizer, "gpt2"))).bos_token is None


# Special tokens


def test_special_is_what_the_file_marks_whether_it_has_a_role_or_not(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<|tool|>", special=False), AddedToken("<|header|>", special=True)])
    folder = make_folder(tmp_path, tokenizer, "llama", {"bos_token": "<s>", "eos_token": "</s>"})
    loaded = read_tokenizer(local(folder))
    marked = loaded.convert_ids_to_tokens(special_token_ids(loaded))
    assert set(marked) == {"<unk>", "<s>", "</s>", "[UNK]", "<|endoftext|>", "<|header|>"}


def test_special_is_what_the_settings_mark_too(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<|eot|>", special=False)])
    number = tokenizer.token_to_id("<|eot|>")
    added = {str(number): {"content": "<|eot|>", "special": True}}
    loaded = read_tokenizer(local(make_folder(tmp_path, tokenizer, "llama", {"added_tokens_decoder": added})))
    assert loaded.convert_tokens_to_ids("<|eot|>") == number
    assert number in special_token_ids(loaded)


def test_there_are_no_special_tokens_without_a_tokenizer() -> None:
    assert special_token_ids(None) == []


# Without a tokenizer.json


def bpe_files(folder: Path) -> Path:
    make_folder(folder, byte_level(), "gpt2", {"tokenizer_class": "GPT2Tokenizer"})
    byte_level().model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    return folder


def test_the_class_reads_vocabulary_and_merges(tmp_path: Path) -> None:
    loaded = read_tokenizer(local(bpe_files(tmp_path)))
    assert pieces(loaded, "the dog") == pieces(AutoTokenizer.from_pretrained(tmp_path), "the dog") == ["the", "Ġdog"]


@pytest.mark.parametrize("missing", ["merges.txt", "vocab.json"])
def test_a_vocabulary_without_merges_is_an_error_and_so_are_merges_alone(tmp_path: Path, missing: str) -> None:
    (bpe_files(tmp_path) / missing).unlink()
    with pytest.raises(TokenizerError, match=rf"the tokenizer in {tmp_path} cannot be loaded"):
        read_tokenizer(local(tmp_path))


@pytest.mark.parametrize(
    ("model_type", "name", "needs"),
    [
        ("gpt2", "GPT2Tokenizer", r"vocab\.json and merges\.txt"),
        ("qwen2", "Qwen2Tokenizer", r"vocab\.json and merges\.txt"),
        ("bert", "BertTokenizer", r"vocab\.txt"),
        ("bert", "LlamaTokenizer", r"tokenizer\.model"),
        ("t5", "T5Tokenizer", r"spiece\.model"),
        ("xlm-roberta", "XLMRobertaTokenizer", r"sentencepiece\.bpe\.model"),
    ],
)
def test_a_class_without_its_vocabulary_is_an_error(tmp_path: Path, model_type: str, name: str, needs: str) -> None:
    """To transformers its vocabulary then is its special tokens, and all text is unknown."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(TokenizerError, match=rf"{name} needs {needs}, or a tokenizer\.json"):
        read_tokenizer(local(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer"])
def test_tokenizers_of_bytes_and_characters_need_no_vocabulary(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    loaded = read_tokenizer(local(tmp_path))
    assert len(loaded("fox", add_special_tokens=False)["input_ids"]) == 3
    assert set(loaded.all_special_ids) <= set(special_token_ids(loaded))


def test_a_slow_tokenizer_is_read_by_its_class(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ctrl"}))
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "t@@": 1, "h@@": 2, "e": 3, "the": 4}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    loaded = read_tokenizer(local(tmp_path))
    assert not loaded.is_fast
    assert pieces(loaded, "the") == ["the"]


# Files that cannot be read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "Unheard"}}'),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer_config.json", "{" * 99),
        ("tokenizer_config.json", '{"model_max_length": "x"}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {"contemt": "<s>"}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "<s>"}}}'),
        ("special_tokens_map.json", "7"),
        ("added_tokens.json", "null"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, content: str) -> None:
    folder = make_folder(tmp_path, byte_level())
    (folder / name).write_text(content)
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(local(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_of_its_own_over_a_sentencepiece_model_is_used_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    mapped = {"auto_map": {"AutoTokenizer": ["own.Shouting", None]}, "tokenizer_class": "Shouting"}
    make_sentencepiece(tmp_path / "own", "llama", settings=mapped)
    (tmp_path / "own" / "own.py").write_text(
        "from transformers import LlamaTokenizer\n\n\nclass Shouting(LlamaTokenizer):\n"
        "    def _encode_plus(self, text, *arguments, **options):\n"
        "        texts = [one.upper() for one in text] if isinstance(text, list) else text.upper()\n"
        "        return super()._encode_plus(texts, *arguments, **options)\n"
    )
    loaded = read_tokenizer(local(tmp_path / "own", trust_remote_code=True))
    assert type(loaded).__name__ == "Shouting"
    assert pieces(loaded, "hw")[-2:] == ["H", "W"]
    with pytest.raises(ValueError, match="trust_remote_code"):
        read_tokenizer(local(tmp_path / "own"))


def test_code_of_a_tokenizers_own_is_not_run_unasked(tmp_path: Path) -> None:
    """Though transformers has a class of that name, and so reads the folder without it."""
    mapped = {"auto_map": {"AutoTokenizer": ["own.LlamaTokenizer", None]}, "tokenizer_class": "LlamaTokenizer"}
    make_sentencepiece(tmp_path, "llama", settings=mapped)
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for choice in ("file", "transformers"):
        tokenizer = read_tokenizer(local(tmp_path), choice)  # type: ignore[arg-type]
        compare_readings(local(tmp_path), tokenizer, choice, ["text"])  # type: ignore[arg-type]
    assert type(tokenizer).__name__ == "LlamaTokenizer"
    assert not (tmp_path / "ran").exists()
