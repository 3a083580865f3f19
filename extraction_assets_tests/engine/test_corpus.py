"""Text becomes samples that never span documents, with masks that tell padding from tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from extraction_assets.engine.corpus import (
    CorpusError,
    Document,
    TokenizedCorpus,
    display_tokens,
    standard_library_documents,
    text_documents,
    tokenize_corpus,
)
from extraction_assets_tests.tiny import TEXTS

DOCUMENTS = [("a", TEXTS["first.txt"]), ("empty", ""), ("b", "def add(a, b):"), ("c", TEXTS["third.txt"])]
WIDTH = 9


@pytest.fixture(scope="module")
def tokenizer(llama: str) -> Any:
    """Byte-level BPE whose pad token is its BOS and EOS token."""
    return AutoTokenizer.from_pretrained(llama)


@pytest.fixture(scope="module")
def ids(tokenizer: Any) -> list[list[int]]:
    """Each document's tokens, without BOS."""
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in DOCUMENTS]


def sample_count(ids: list[list[int]]) -> int:
    return sum(-(-len(own) // (WIDTH - 1)) for own in ids)


@pytest.fixture(scope="module")
def whole(tokenizer: Any, ids: list[list[int]]) -> TokenizedCorpus:
    return tokenize_corpus(DOCUMENTS, tokenizer, WIDTH, sample_count(ids))


# Samples


def test_samples_are_each_documents_tokens_in_order_tails_kept(whole: TokenizedCorpus, ids: list[list[int]]) -> None:
    for number, own in enumerate(ids):
        rows = whole.document_numbers == number
        text = whole.attention_mask[rows]
        text[:, 0] = False  # BOS
        assert whole.token_ids[rows][text].tolist() == own
        assert whole.first_tokens[rows].tolist() == list(range(0, len(own), WIDTH - 1))


def test_no_sample_spans_two_documents_and_empty_ones_give_none(whole: TokenizedCorpus) -> None:
    assert whole.document_ids == ["a", "empty", "b", "c"]
    assert sorted(set(whole.document_numbers.tolist())) == [0, 2, 3]
    assert whole.document_numbers.tolist() == sorted(whole.document_numbers.tolist())


def test_every_sample_begins_with_bos_which_is_special(whole: TokenizedCorpus, tokenizer: Any) -> None:
    assert set(whole.token_ids[:, 0].tolist()) == {tokenizer.bos_token_id}
    assert whole.special_tokens_mask[:, 0].all()
    assert not whole.special_tokens_mask[:, 1:].any()


def test_masks_cover_the_tokens_and_nothing_else(whole: TokenizedCorpus) -> None:
    lengths = whole.attention_mask.sum(axis=1)
    assert np.array_equal(whole.attention_mask, np.arange(WIDTH) < lengths[:, None])
    assert not (whole.special_tokens_mask & ~whole.attention_mask).any()
    assert 1 < lengths.min() < lengths.max() == WIDTH


def test_an_end_token_in_the_text_is_a_token_though_it_pads_too(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    corpus = tokenize_corpus([("a", "x<|endoftext|>y")], tokenizer, 6, 1)
    end = tokenizer.eos_token_id
    assert (corpus.token_ids[0, :4] == end).tolist() == [True, False, True, False]
    assert corpus.attention_mask[0].tolist() == [True] * 4 + [False] * 2
    assert corpus.special_tokens_mask[0].tolist() == [True, False, True, False, False, False]


def test_bos_may_be_left_out(tokenizer: Any, ids: list[list[int]]) -> None:
    corpus = tokenize_corpus(DOCUMENTS, tokenizer, WIDTH, 2, prepend_bos=False)
    assert corpus.token_ids[0].tolist() == ids[0][:WIDTH]
    assert corpus.first_tokens.tolist() == [0, WIDTH]
    assert not corpus.special_tokens_mask.any()


def test_types_and_shapes(whole: TokenizedCorpus, ids: list[list[int]]) -> None:
    total = sample_count(ids)
    assert whole.token_ids.shape == whole.attention_mask.shape == whole.special_tokens_mask.shape == (total, WIDTH)
    assert [array.dtype.name for array in whole[:5]] == ["int32", "bool", "bool", "int64", "int64"]


def test_start_sample_keeps_the_absolute_alignment(tokenizer: Any, whole: TokenizedCorpus) -> None:
    part = tokenize_corpus(DOCUMENTS, tokenizer, WIDTH, 4, start_sample=3)
    for own, all_ in zip(part[:5], whole[:5], strict=True):
        assert np.array_equal(own, all_[3:7])


def test_more_samples_rename_nothing(tokenizer: Any, whole: TokenizedCorpus) -> None:
    few = tokenize_corpus(DOCUMENTS, tokenizer, WIDTH, 5)
    for own, all_ in zip(few[:5], whole[:5], strict=True):
        assert np.array_equal(own, all_[:5])


def test_too_few_samples_name_both_numbers(tokenizer: Any, ids: list[list[int]]) -> None:
    total = sample_count(ids)
    message = rf"holds {total} samples of 9 positions, but {total + 3} are asked for .start_sample 2 \+ "
    with pytest.raises(CorpusError, match=message):
        tokenize_corpus(DOCUMENTS, tokenizer, WIDTH, total + 1, start_sample=2)


def test_documents_that_are_not_needed_are_not_read(tokenizer: Any) -> None:
    def endless() -> Iterator[Document]:
        for number in range(10**6):
            assert number < 200, "read far too much"
            yield str(number), "some text"

    assert len(tokenize_corpus(endless(), tokenizer, WIDTH, 70).token_ids) == 70


def test_progress_counts_the_samples(tokenizer: Any) -> None:
    seen: list[int] = []
    tokenize_corpus(DOCUMENTS, tokenizer, WIDTH, 5, start_sample=1, on_samples=seen.append)
    assert sum(seen) == 5


def test_no_room_for_text_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(CorpusError, match="max_length 1 leaves no room for text after the BOS token"):
        tokenize_corpus(DOCUMENTS, tokenizer, 1, 1)


def test_bos_of_a_tokenizer_without_one_is_an_error(llama: str) -> None:
    bare = AutoTokenizer.from_pretrained(llama)
    bare.bos_token = None
    with pytest.raises(CorpusError, match="prepend_bos is set, but the tokenizer has no BOS token"):
        tokenize_corpus(DOCUMENTS, bare, WIDTH, 1, prepend_bos=True)
    assert not tokenize_corpus(DOCUMENTS, bare, WIDTH, 1).special_tokens_mask.any()


# Tokens for people


def display(tokenizer: Any, text: str) -> list[str]:
    return display_tokens(tokenizer)(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("text", list(TEXTS.values()))
def test_there_is_one_display_string_for_each_id(tokenizer: Any, text: str) -> None:
    assert len(display(tokenizer, text)) == len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_plain_text_displays_as_itself(tokenizer: Any) -> None:
    assert "".join(display(tokenizer, TEXTS["first.txt"])) == TEXTS["first.txt"]
    assert display(tokenizer, "\n\t") == ["\n", "\t"]


def test_pieces_of_an_emoji_show_their_bytes(tokenizer: Any) -> None:
    assert "".join(display(tokenizer, "\N{FOX FACE}")) == r"\xf0\x9f\xa6\x8a"


@pytest.mark.parametrize(("text", "shown"), [("\0", r"\x00"), ("\x1b", r"\x1b"), ("\x7f", r"\x7f")])
def test_control_characters_are_escaped(tokenizer: Any, text: str, shown: str) -> None:
    assert display(tokenizer, text) == [shown]


def test_a_sentencepiece_word_keeps_its_space() -> None:
    pieces = Tokenizer(models.WordLevel({"\N{LOWER ONE EIGHTH BLOCK}the": 0, "re": 1}, "re"))
    pieces.decoder = decoders.Metaspace()
    assert display_tokens(PreTrainedTokenizerFast(tokenizer_object=pieces))([0, 1]) == [" the", "re"]


def test_special_tokens_display_as_their_names(tokenizer: Any) -> None:
    assert display_tokens(tokenizer)([tokenizer.eos_token_id]) == ["<|endoftext|>"]


def test_every_token_of_the_vocabulary_is_text_that_a_database_takes(tokenizer: Any) -> None:
    shown = display_tokens(tokenizer)(list(range(len(tokenizer))))
    assert all(text and "\0" not in text and text.encode("utf-8") for text in shown)
    assert not [text for text in shown if "\N{REPLACEMENT CHARACTER}" in text]


# Documents


def test_a_folders_files_come_sorted_and_named_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.txt", "b/a.txt", "b/c.md"):
        (tmp_path / name).write_text(name)
    assert list(text_documents(str(tmp_path))) == [(name, name) for name in ("b/a.txt", "b/c.md", "z.txt")]


def test_a_file_and_a_glob_are_sources_too(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert list(text_documents(str(tmp_path / "c.md"))) == [("c.md", "c.md")]
    assert [name for name, _ in text_documents(str(tmp_path / "*.txt"))] == ["a.txt", "b.txt"]


def test_a_folder_with_glob_characters_in_its_name_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "corpus [v1]"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    assert list(text_documents(str(folder))) == [("a.txt", "text")]


def test_a_source_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus source '.*nothing' matches no file"):
        list(text_documents(str(tmp_path / "nothing")))


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(CorpusError, match=r"image\.png is not UTF-8 text"):
        list(text_documents(str(tmp_path)))


def test_the_standard_library_is_a_corpus() -> None:
    name, text = next(standard_library_documents())
    assert name.endswith(".py")
    assert isinstance(text, str)
