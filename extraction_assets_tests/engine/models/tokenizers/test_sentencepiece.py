"""A folder with a SentencePiece model alone is read as sentencepiece itself reads it."""

from pathlib import Path

import pytest

from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets.engine.models.tokenizers.comparison import compare_readings
from extraction_assets.engine.models.tokenizers.tokenizer import TokenizerError, read_tokenizer
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.tokenizer_folders import (
    FILE_NAMES,
    TRAINED_ON,
    make_sentencepiece,
    sentencepiece_pieces,
)
from extraction_assets_tests.engine.models.tokenizers.test_tokenizers import pieces

TEXTS = [*TRAINED_ON[:2], "the cat's 2024 dogs", "Hello, World! I ran", "in 4 years"]


@pytest.mark.parametrize("kind", list(FILE_NAMES))
def test_its_pieces_are_the_tokens(tmp_path: Path, kind: str) -> None:
    path = make_sentencepiece(tmp_path, kind)
    tokenizer = read_tokenizer(local(tmp_path))
    for text in TEXTS:
        if kind != "albert":
            assert pieces(tokenizer, text) == sentencepiece_pieces(path, text)
    assert pieces(tokenizer, "the lazy dog") == sentencepiece_pieces(path, "the lazy dog")


@pytest.mark.parametrize("kind", list(FILE_NAMES))
def test_its_tokens_display_as_text(tmp_path: Path, kind: str) -> None:
    make_sentencepiece(tmp_path, kind)
    tokenizer = read_tokenizer(local(tmp_path))
    text = "the lazy dog ran"
    shown = display_tokens(tokenizer)(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert "".join(shown).strip() == text


def test_bytes_of_a_character_that_it_does_not_know_display_as_bytes(tmp_path: Path) -> None:
    make_sentencepiece(tmp_path, "llama")
    tokenizer = read_tokenizer(local(tmp_path))
    ids = tokenizer("\N{FOX FACE}", add_special_tokens=False)["input_ids"]
    assert "".join(display_tokens(tokenizer)(ids)) == r" \xf0\x9f\xa6\x8a"


@pytest.mark.parametrize("model_type", ["llama", "mistral", "phi3", "qwen2"])
def test_a_class_that_leaves_its_first_space_out_gives_way_to_one_that_does_not(
    tmp_path: Path, model_type: str
) -> None:
    path = make_sentencepiece(tmp_path, "llama", model_type)
    tokenizer = read_tokenizer(local(tmp_path))
    assert pieces(tokenizer, "hello") == sentencepiece_pieces(path, "hello")
    assert pieces(read_tokenizer(local(tmp_path), "transformers"), "hello") != sentencepiece_pieces(path, "hello")
    [other, *_] = compare_readings(local(tmp_path), tokenizer, "file", [])
    assert "LlamaTokenizer is used, which reads plain text as sentencepiece does" in other.message


@pytest.mark.parametrize(("kind", "model_type"), [("xlm-roberta", "xglm"), ("t5", "fnet")])
def test_a_class_that_reads_plain_text_otherwise_is_refused(tmp_path: Path, kind: str, model_type: str) -> None:
    path = make_sentencepiece(tmp_path, kind, model_type)
    with pytest.raises(TokenizerError, match=rf"reads {path} otherwise than sentencepiece does: '"):
        read_tokenizer(local(tmp_path))
    assert pieces(read_tokenizer(local(tmp_path), "transformers"), "hello world") != sentencepiece_pieces(
        path, "hello world"
    )


def test_what_a_class_changes_of_other_text_is_a_warning_with_an_example(tmp_path: Path) -> None:
    make_sentencepiece(tmp_path, "albert")
    tokenizer = read_tokenizer(local(tmp_path))
    [found] = compare_readings(local(tmp_path), tokenizer, "file", ["plain", "the café of the fox"])
    assert found.severity == "warning"
    assert "AlbertTokenizer tokenizes 1 of 2 texts of the corpus" in found.message
    assert "such as 'café' ('▁|c|a|f|é' by sentencepiece, '▁|c|a|f|e' by AlbertTokenizer)" in found.message


def test_a_model_of_another_kind_is_refused_in_one_sentence(tmp_path: Path) -> None:
    make_sentencepiece(tmp_path, "llama").write_bytes(b"IQ== 0\nIg== 1\n")  # as tiktoken writes them
    with pytest.raises(TokenizerError, match=r"the tokenizer in .* cannot be loaded"):
        read_tokenizer(local(tmp_path))
