"""A tokenizer as its files say.

Transformers gives most model types a class of their own, which rebuilds the tokenizer from the vocabulary in
``tokenizer.json`` with a normalizer and a pre-tokenizer that are written in the class: its digits, prefixes and case
then stand for those of the file. The generic class (``TokenizersBackend``, once ``PreTrainedTokenizerFast``) reads the
file as it is, and the tokenizer's other files beside it.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, explain_untrusted_code
from extraction_assets.engine.models.files.model_folder import damaged_json
from extraction_assets.engine.models.tokenizers.sentencepiece_files import (
    SentencePieceFile,
    open_sentencepiece,
    reads_plain_text_alike,
)

TokenizerChoice = Literal["file", "transformers"]
"""``file``: as ``tokenizer.json`` says; ``transformers``: by the class that transformers has for the model's type."""


class TokenizerError(CorpusError):
    """A tokenizer that cannot be loaded, or that is read otherwise than its files say."""


def load_tokenizer(checkpoint: LocalCheckpoint, choice: TokenizerChoice = "file") -> Any:
    """The tokenizer of a checkpoint, see ``read_tokenizer``. Raises TokenizerError, and UntrustedCodeError as
    ``load_language_model``."""
    with explain_untrusted_code(checkpoint.folder, "tokenizer.json"):
        return read_tokenizer(checkpoint, choice)


def read_tokenizer(checkpoint: LocalCheckpoint, choice: TokenizerChoice = "file") -> Any:
    """The tokenizer of a checkpoint.

    With ``file`` and a ``tokenizer.json``, its normalizer, pre-tokenizer and model, with the tokens, special flags,
    roles and ``split_special_tokens`` of the tokenizer's other files. A class that comes with the tokenizer and is
    trusted is one of its files and is used. Without a ``tokenizer.json`` the class of transformers, which has to agree
    with sentencepiece where there is a model of it; one that does not gives way to ``LlamaTokenizer`` where that does.

    Raises TokenizerError for files that give no tokenizer, or one that reads plain text otherwise than they say;
    ValueError that names ``trust_remote_code`` where nothing but code of its own could load it.
    """
    folder = checkpoint.folder
    if choice == "transformers":
        return class_tokenizer(checkpoint)
    if _has_own_class(folder):
        tokenizer = class_tokenizer(checkpoint)
        if checkpoint.trust_remote_code:
            return tokenizer
    if tokenizer_file(folder) is None:
        return _agreeing_with_sentencepiece(folder, class_tokenizer(LocalCheckpoint(folder)))
    return _with_roles(folder, generic_tokenizer(folder))


def generic_tokenizer(folder: Path) -> Any:
    """``tokenizer.json`` and the other files as the generic class reads them. Raises TokenizerError."""
    from transformers import PreTrainedTokenizerFast

    declared_tokens(folder)
    with _one_sentence(folder):
        # The option would put another pre-tokenizer in place of the file's.
        return _tried(PreTrainedTokenizerFast.from_pretrained(folder, fix_mistral_regex=False))


def class_tokenizer(checkpoint: LocalCheckpoint) -> Any:
    """The tokenizer by the class that transformers chooses for it. Raises as ``read_tokenizer``."""
    from transformers import AutoTokenizer

    folder, trusted = checkpoint.folder, checkpoint.trust_remote_code
    declared_tokens(folder)
    open_sentencepiece(folder)  # loads sentencepiece in the one way that does no harm, where it is needed
    with _one_sentence(folder):
        tokenizer = _tried(AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted))
    _refuse_missing_vocabulary(folder, tokenizer)
    return tokenizer


def tokenizer_file(folder: Path) -> Path | None:
    """The ``tokenizer.json`` that transformers of this version reads; None if it does not exist."""
    name = "tokenizer.json"
    versions = tokenizer_settings(folder).get("fast_tokenizer_files")
    if versions:
        from transformers.tokenization_utils_base import get_fast_tokenizer_file

        with _one_sentence(folder):
            name = get_fast_tokenizer_file(versions)
    return folder / name if (folder / name).is_file() else None


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json``; empty if it does not exist. Raises TokenizerError if it is not a JSON object."""
    return _json_object(folder / "tokenizer_config.json")


def declared_tokens(folder: Path) -> dict[str, int]:
    """Ids of the tokens that tokenizer_config.json adds. Raises TokenizerError for an entry that says no token: to
    transformers that is the empty one."""
    declared = tokenizer_settings(folder).get("added_tokens_decoder", {})
    try:
        found = {token["content"]: int(number) for number, token in declared.items()}
        if not all(isinstance(content, str) and content for content in found):
            raise ValueError("a content that is no text")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TokenizerError(
            f"{folder / 'tokenizer_config.json'}: added_tokens_decoder is not ids with the content of a token "
            f"({type(error).__name__}: {error}): download the file again"
        ) from error
    return found


def _with_roles(folder: Path, tokenizer: Any) -> Any:
    """A role that no file names (GPT-2's name none) is that of the model type's class, if the file has its token; one
    that a file names as null has no token. Roles do not affect how text is tokenized."""
    named = tokenizer_settings(folder).keys() | _json_object(folder / "special_tokens_map.json").keys()
    roles = [role for role in tokenizer.SPECIAL_TOKENS_ATTRIBUTES if role not in named]
    if not roles:
        return tokenizer
    try:
        by_class = class_tokenizer(LocalCheckpoint(folder))
    except ValueError:
        return tokenizer  # no class of transformers reads the folder, so none names a role
    vocabulary = tokenizer.get_vocab()
    for role in roles:
        token = getattr(by_class, role, None)
        if token is not None and vocabulary.get(token, -1) == by_class.convert_tokens_to_ids(token):
            setattr(tokenizer, role, token)
    return tokenizer


def _has_own_class(folder: Path) -> bool:
    """Whether the tokenizer names a class in Python code that comes with it."""
    mapped = tokenizer_settings(folder).get("auto_map")
    return isinstance(mapped, (list, tuple)) or (isinstance(mapped, dict) and mapped.get("AutoTokenizer") is not None)


def _agreeing_with_sentencepiece(folder: Path, tokenizer: Any) -> Any:
    file = open_sentencepiece(folder, tokenizer)
    if file is None or reads_plain_text_alike(tokenizer, file):
        return tokenizer
    llama = _llama_tokenizer(folder, file)
    if llama is not None:
        return llama
    text, pieces = file.example(tokenizer)
    raise TokenizerError(
        f"transformers' {type(tokenizer).__name__} reads {file.path} otherwise than sentencepiece does: {text!r} is "
        f"{'|'.join(pieces)} by the class and {'|'.join(file.pieces(text))} by the file: put the model's "
        "tokenizer.json there, or name its class in tokenizer_config.json (tokenizer_class), or set corpus.tokenizer: "
        "transformers to take what the class gives"
    )


def _llama_tokenizer(folder: Path, file: SentencePieceFile) -> Any | None:
    """The tokenizer by the class that reads a BPE model as sentencepiece does, if it does so here."""
    from transformers import LlamaTokenizer

    if not file.is_bpe:
        return None
    with _one_sentence(folder):
        tokenizer = LlamaTokenizer.from_pretrained(folder)
    return tokenizer if reads_plain_text_alike(tokenizer, file) else None


def _refuse_missing_vocabulary(folder: Path, tokenizer: Any) -> None:
    """A class that finds no vocabulary makes one of its special tokens alone, and one without merges splits all text
    into characters: neither is an error to transformers."""
    names = getattr(tokenizer, "vocab_files_names", None) or {}
    if not names or tokenizer_file(folder) is not None or _has_own_class(folder):
        return  # those of characters or bytes have no files, and a class that comes with its files finds them itself
    found = [path.name for path in folder.iterdir()]
    wanted = {key: name for key, name in names.items() if key in ("vocab_file", "merges_file")}
    missing = [name for key, name in wanted.items() if name not in found and not _given(tokenizer, key)]
    if missing:
        raise TokenizerError(
            f"{folder} holds no complete tokenizer: {type(tokenizer).__name__} needs {' and '.join(missing)}, or a "
            "tokenizer.json"
        )


def _tried(tokenizer: Any) -> Any:
    """The tokenizer, once it has made tokens of a text: some wrong settings are noticed only then."""
    tokenizer("a", add_special_tokens=False)
    return tokenizer


def _given(tokenizer: Any, key: str) -> bool:
    """Whether transformers found a file of another name in a vocabulary's place, such as a sentencepiece model, which
    needs no merges."""
    file = getattr(tokenizer, "vocab_file", None) or tokenizer.init_kwargs.get("vocab_file")
    if not isinstance(file, str) or not Path(file).is_file():
        return False
    return key == "vocab_file" or not file.endswith((".json", ".txt"))


@contextlib.contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    """One sentence for whatever transformers and tokenizers raise on files that they cannot read."""
    try:
        yield
    except Exception as error:  # tokenizers raises plain Exceptions
        if "trust_remote_code" in str(error):
            raise
        damaged = damaged_json(folder)
        if damaged is not None:
            raise TokenizerError(str(damaged)) from error
        said = " ".join(str(error).split())
        raise TokenizerError(
            f"the tokenizer in {folder} cannot be loaded ({type(error).__name__}: {said[:200]}): give it a "
            "tokenizer.json that transformers reads, or all files of its class"
        ) from error


def _json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is no JSON ({error}): download it again") from error
    if not isinstance(found, dict):
        raise TokenizerError(f"{path} holds no JSON object, as a tokenizer's settings are: download it again")
    return found
