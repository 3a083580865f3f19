"""What another reading of a tokenizer's files would change, and where its files contradict one another."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets.engine.corpora.documents import Conversation, Document
from extraction_assets.engine.findings import Finding
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.tokenizers.sentencepiece_files import open_sentencepiece, tokenizer_pieces
from extraction_assets.engine.models.tokenizers.tokenizer import (
    TokenizerChoice,
    class_tokenizer,
    declared_tokens,
    generic_tokenizer,
    tokenizer_file,
)

PROBES = (
    "in 2024 and 1,234.5 of 100000",
    "Hello WORLD",
    " two  spaces,\ta tab\nand lines\r\n\r\n    indented ",
    "it's we'll f(x[0]) != 'a_b'; //",
    "Straße, naïve café, e\u0301 and İstanbul",
    "\ufb01 \u00bd \u2460 \u00a0 \u200b",
    "今日は 日本語 한국어 \N{FOX FACE}",
)
"""Text on which readings differ: digits, case, spaces, marks, accents, compatibility characters, other scripts."""

TEXTS, CHARACTERS = 64, 2000
"""Texts of a corpus that are compared, and how much of each."""

_SHOWN = 60


def same_parts(one: Any, other: Any) -> bool:
    """Whether two tokenizers of the same files are the same in every part that makes tokens of text."""
    if not (one.is_fast and other.is_fast):
        return type(one) is type(other)
    return bool(type(one)._encode_plus is type(other)._encode_plus and _parts(one) == _parts(other))


def _parts(tokenizer: Any) -> list[Any]:
    backend = tokenizer.backend_tokenizer
    parts = [part and part.__getstate__() for part in (backend.normalizer, backend.pre_tokenizer, backend.model)]
    added = {number: repr(token) for number, token in backend.get_added_tokens_decoder().items()}
    return [*parts, added, tokenizer.split_special_tokens]


class Reading(NamedTuple):
    """One way to tokenize."""

    name: str
    tokens: Callable[[str], Sequence[Any]]
    """What is compared: ids, or pieces where ids may differ."""
    shown: Callable[[str], Sequence[str]]


def compare_readings(
    checkpoint: LocalCheckpoint, tokenizer: Any, choice: TokenizerChoice, texts: Iterable[str]
) -> list[Finding]:
    """What the class of transformers would change against the files, as warnings with an example.

    ``texts`` are of the corpus, the first 64 are used; fixed probes are added. With a ``tokenizer.json`` that file is
    compared with the class, else the class with sentencepiece where there is a model of it. ``tokenizer`` is what
    ``read_tokenizer`` gave for ``checkpoint`` and ``choice``.
    """
    compared = [text[:CHARACTERS] for text, _ in zip(texts, range(TEXTS), strict=False)]
    folder = checkpoint.folder
    file = tokenizer_file(folder)
    if file is None:
        other = [] if choice == "transformers" else _other_class(checkpoint, tokenizer)
        return [*other, *_with_sentencepiece(folder, tokenizer, compared)]
    by_file = generic_tokenizer(folder)
    return [
        *_with_class(checkpoint, file, by_file, tokenizer, choice, compared),
        *_contradictions(file, by_file),
    ]


def _with_class(
    checkpoint: LocalCheckpoint, file: Path, by_file: Any, tokenizer: Any, choice: TokenizerChoice, texts: list[str]
) -> Iterable[Finding]:
    if not same_parts(tokenizer, by_file):
        by_class, used = tokenizer, "the class is used, corpus.tokenizer: file takes the other"
        if choice == "file":
            used = "the class comes with the tokenizer, is trusted and is used"
    else:
        used = "the file is used, corpus.tokenizer: transformers takes the other"
        try:
            by_class = class_tokenizer(checkpoint)
        except ValueError as error:
            why = " ".join(str(error.__cause__ or error).split())[:200]
            text = f"{file} is read as it is; it is not compared with the class of transformers, which fails ({why})"
            yield Finding("warning", text)
            return
    if not same_parts(by_class, by_file):
        readings = (_reading("the file", by_file), _reading(type(by_class).__name__, by_class))
        difference = _difference(*readings, texts)
        if difference:
            yield Finding("warning", f"{file}: {difference}; {used}")


def _other_class(checkpoint: LocalCheckpoint, tokenizer: Any) -> Iterable[Finding]:
    """Whether another class reads the files than the one that transformers chooses (``read_tokenizer``)."""
    chosen = type(class_tokenizer(checkpoint)).__name__
    used = type(tokenizer).__name__
    if chosen != used:
        folder = checkpoint.folder
        text = f"transformers would read the tokenizer in {folder} by {chosen}, otherwise than sentencepiece does"
        yield Finding("warning", f"{text}; {used} is used, which reads plain text as sentencepiece does")


def _with_sentencepiece(folder: Path, tokenizer: Any, texts: list[str]) -> Iterable[Finding]:
    file = open_sentencepiece(folder, tokenizer)
    if file is None:
        return
    special = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    # Sentencepiece takes the name of a special token in a text for text; that is meant otherwise here.
    plain = [text for text in texts if not any(name in text for name in special)]
    readings = (
        Reading("sentencepiece", file.pieces, file.pieces),
        Reading(
            type(tokenizer).__name__,
            lambda text: tokenizer_pieces(tokenizer, text),
            lambda text: tokenizer_pieces(tokenizer, text),
        ),
    )
    difference = _difference(*readings, plain)
    if difference:
        yield Finding("warning", f"{file.path}: {difference}; the class is used, for there is no tokenizer.json")


def _contradictions(file: Path, tokenizer: Any) -> Iterable[Finding]:
    """The first token that tokenizer_config.json gives another id than it has, and the first role's token that
    tokenizer.json does not hold: transformers then gives ids that no model was trained with."""
    from tokenizers import Tokenizer

    contents, vocabulary = declared_tokens(file.parent), tokenizer.get_vocab()
    for content, number in contents.items():
        if vocabulary.get(content) != number:
            text = (
                f"{file.with_name('tokenizer_config.json')} gives the token {content!r} the id {number}, but beside "
                f"{file.name} it has {vocabulary.get(content)}: one of the files is of another tokenizer"
            )
            yield Finding("warning", text)
            break
    held = Tokenizer.from_file(str(file))
    for role in ("bos_token", "eos_token", "sep_token"):  # those that samples are given
        token = getattr(tokenizer, role, None)
        if isinstance(token, str) and held.token_to_id(token) is None and token not in contents:
            text = (
                f"the files beside {file} name {token!r} as {role}, but {file.name} does not hold it: it is given the "
                f"id {vocabulary.get(token)}, which the model was hardly trained with"
            )
            yield Finding("warning", text)
            break


def _reading(name: str, tokenizer: Any) -> Reading:
    display = display_tokens(tokenizer)

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    return Reading(name, ids, lambda text: display(ids(text)))


def _difference(one: Reading, other: Reading, texts: Sequence[str]) -> str:
    """In how many of the texts and of the probes two readings differ, with an example of each; empty for none."""
    parts, examples = [], []
    for what, group in (("texts of the corpus", texts), ("fixed probes", PROBES)):
        differing = [text for text in group if one.tokens(text) != other.tokens(text)]
        if differing:
            parts.append(f"{len(differing)} of {len(group)} {what}")
            examples.append(_example(_smallest(differing[0], one, other), one, other))
    if not parts:
        return ""
    return f"{other.name} tokenizes {' and '.join(parts)} otherwise, such as {' and '.join(dict.fromkeys(examples))}"


def _example(text: str, one: Reading, other: Reading) -> str:
    pieces = [f"{_cut('|'.join(reading.shown(text)))} by {reading.name}" for reading in (one, other)]
    return f"{_cut(text)} ({', '.join(pieces)})"


def _cut(text: str) -> str:
    """A piece of text, quoted and short; escaped where it holds what cannot be printed."""
    short = text[:_SHOWN]
    return (f"'{short}'" if short.isprintable() else repr(short)) + ("…" if len(text) > _SHOWN else "")


def _smallest(text: str, one: Reading, other: Reading) -> str:
    """A part of a text that the readings still tokenize differently: a line, a word, a part of a long one."""
    for split in (str.splitlines, str.split):
        parts = (part for part in split(text) if one.tokens(part) != other.tokens(part))
        text = next(parts, text)
    while len(text) > _SHOWN:
        halves = (text[: len(text) // 2], text[len(text) // 2 :])
        half = next((half for half in halves if one.tokens(half) != other.tokens(half)), None)
        if half is None:
            break
        text = half
    return text


def noting_texts(documents: Iterable[Document], texts: list[str]) -> Iterator[Document]:
    """The same documents; adds the texts of the first ones to ``texts``, as many and as much as are compared."""
    for name, text in documents:
        spoken = "\n".join(text.texts) if isinstance(text, Conversation) else text
        if len(texts) < TEXTS and isinstance(spoken, str):
            texts.append(spoken[:CHARACTERS])
        yield name, text
