"""One readable string for each token, of every kind of tokenizer."""

import json
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets_tests.tiny import TEXTS

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


@pytest.fixture(scope="module")
def byte_level(llama: str) -> Any:
    """Byte-level BPE, as GPT-2 and Llama 3 have it."""
    return AutoTokenizer.from_pretrained(llama)


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """BPE with ``▁`` and byte fallback, as Llama 2, Mistral and Gemma have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, show_progress=False, limit_alphabet=40, initial_alphabet=[SPACE]
    )
    tokenizer.train_from_iterator([TEXTS["first.txt"].replace("\n", " "), "one  two    three " * 9], trainer)
    described = json.loads(tokenizer.to_str())  # bytes are ordinary tokens there, not special ones
    described["added_tokens"] = [own for own in described["added_tokens"] if not own["content"].startswith("<0x")]
    described["added_tokens"].append(
        {**described["added_tokens"][0], "id": 400, "content": SPACE * 3, "special": False}
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@pytest.fixture(scope="module")
def wordpiece() -> Any:
    """WordPiece, as BERT has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator([TEXTS["first.txt"]], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def display(tokenizer: Any, text: str) -> list[str]:
    return display_tokens(tokenizer)(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "wordpiece"])
@pytest.mark.parametrize("text", list(TEXTS.values()))
def test_there_is_one_display_string_for_each_id(kind: str, text: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(kind)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = display_tokens(tokenizer)
    assert len(shown(ids)) == len(ids) > 20
    assert shown(ids) == [text for token in ids for text in shown([token])]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "wordpiece"])
def test_every_token_of_the_vocabulary_is_text_that_a_database_takes(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(kind)
    shown = display_tokens(tokenizer)(list(range(len(tokenizer))))
    assert all(text and "\0" not in text and text.encode("utf-8") for text in shown)
    assert not [text for text in shown if "\N{REPLACEMENT CHARACTER}" in text]


# Byte-level BPE


def test_plain_text_displays_as_itself(byte_level: Any) -> None:
    assert "".join(display(byte_level, TEXTS["first.txt"])) == TEXTS["first.txt"]
    assert display(byte_level, "\n\t") == ["\n", "\t"]


def test_pieces_of_an_emoji_show_their_bytes(byte_level: Any) -> None:
    assert "".join(display(byte_level, "\N{FOX FACE}")) == r"\xf0\x9f\xa6\x8a"


@pytest.mark.parametrize(("text", "shown"), [("\0", r"\x00"), ("\x1b", r"\x1b"), ("\x7f", r"\x7f")])
def test_control_characters_are_escaped(byte_level: Any, text: str, shown: str) -> None:
    assert display(byte_level, text) == [shown]


def test_special_tokens_display_as_their_names(byte_level: Any) -> None:
    assert display_tokens(byte_level)([byte_level.eos_token_id]) == ["<|endoftext|>"]


def test_an_added_token_displays_as_it_was_given(llama: str) -> None:
    """Its letters are no bytes: ``é`` stands for byte 0xE9 in the byte-level alphabet."""
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.add_tokens(["caféX", AddedToken("<|né à|>", special=True)])
    assert display(tokenizer, "caféX<|né à|>") == ["caféX", "<|né à|>"]


def test_an_id_that_the_tokenizer_does_not_know_shows_as_a_number(byte_level: Any) -> None:
    """A model's embedding may have more rows than its tokenizer has tokens."""
    assert display_tokens(byte_level)([len(byte_level) + 7]) == [f"<id {len(byte_level) + 7}>"]


def test_without_a_tokenizer_ids_are_shown() -> None:
    assert display_tokens(None)([3, 17, 3]) == ["<id 3>", "<id 17>", "<id 3>"]


# SentencePiece


def test_a_word_keeps_its_space_and_a_run_of_spaces_its_length(sentencepiece: Any) -> None:
    text = "the quick brown fox one  two    three"
    assert "".join(display(sentencepiece, text)) == f" {text}"
    ids = sentencepiece.convert_tokens_to_ids([SPACE * 2, SPACE, SPACE * 3])  # the last one is an added token
    assert display_tokens(sentencepiece)(ids) == ["  ", " ", "   "]


def test_byte_tokens_show_their_character_or_their_byte(sentencepiece: Any) -> None:
    ids = sentencepiece.convert_tokens_to_ids(["<0x0A>", "<0xF0>", "<0x00>", "<0x20>"])
    assert display_tokens(sentencepiece)(ids) == ["\n", r"\xf0", r"\x00", " "]
    assert "".join(display(sentencepiece, "\N{FOX FACE}")[1:]) == r"\xf0\x9f\xa6\x8a"


# WordPiece


def test_pieces_inside_a_word_keep_their_mark(wordpiece: Any) -> None:
    shown = display(wordpiece, "the dog sleeping")
    assert shown[0] == "the"
    assert all(piece.startswith("##") for piece in shown[3:])
    assert "".join(piece.removeprefix("##") for piece in shown) == "thedogsleeping"
    assert display_tokens(wordpiece)([wordpiece.cls_token_id]) == ["[CLS]"]
