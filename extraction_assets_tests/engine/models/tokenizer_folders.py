"""Folders of tiny real tokenizers: tokenizer.json of three kinds, and SentencePiece models."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sentencepiece

TRAINED_ON = ["In 202 years 4 dogs ran 100 miles, and it's the café of the fox. Hello World!", "the lazy dog"] * 30
SPECIAL = ["<unk>", "<s>", "</s>", "[UNK]", "<|endoftext|>"]


def byte_level(**trainer: Any) -> Tokenizer:
    """Byte-level BPE that keeps up to three digits together, as Llama 3 has it."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": 400, "special_tokens": SPECIAL, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(TRAINED_ON, trainers.BpeTrainer(**{**options, **trainer}))
    return tokenizer


def wordpiece() -> Tokenizer:
    """WordPiece that keeps case and accents."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """Unigram that puts no space before a text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return tokenizer


def make_folder(
    folder: Path, tokenizer: Tokenizer, model_type: str = "llama", settings: dict[str, Any] | None = None
) -> Path:
    """A folder with tokenizer.json, the model's type and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


SENTENCEPIECE: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
    },
    "gemma": {
        "model_type": "bpe",
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "normalization_rule_name": "identity",
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
        "user_defined_symbols": ["<mask>", "<start_of_turn>"],
    },
    "t5": {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "albert": {
        "model_type": "unigram",
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": -1,
        "eos_id": -1,
        "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
    },
    "xlm-roberta": {"model_type": "unigram"},
}
"""How the SentencePiece models of these model types were trained."""

FILE_NAMES = {
    "llama": "tokenizer.model",
    "gemma": "tokenizer.model",
    "t5": "spiece.model",
    "albert": "spiece.model",
    "xlm-roberta": "sentencepiece.bpe.model",
}


def make_sentencepiece(
    folder: Path, kind: str, model_type: str | None = None, settings: dict[str, Any] | None = None
) -> Path:
    """A folder that holds a SentencePiece model alone, with the model's type; the path of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAMES[kind]
    size = 380 if SENTENCEPIECE[kind].get("byte_fallback") else 110
    with path.open("wb") as file:
        trained = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINED_ON),
            model_writer=trained,
            vocab_size=size,
            hard_vocab_limit=False,
            minloglevel=2,
            **SENTENCEPIECE[kind],
        )
        file.write(trained.getvalue())
    (folder / "config.json").write_text(json.dumps({"model_type": model_type or kind}))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def sentencepiece_pieces(path: Path, text: str) -> list[str]:
    """SentencePiece's own reading of a text, as spelled in its model."""
    processor = sentencepiece.SentencePieceProcessor(str(path))
    return [processor.id_to_piece(number) for number in processor.encode(text)]
