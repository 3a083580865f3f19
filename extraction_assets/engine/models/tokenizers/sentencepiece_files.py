"""Sentencepiece's own reading of a tokenizer's ``.model`` file, to compare transformers' with."""

import warnings
from pathlib import Path
from typing import Any

from extraction_assets.engine.corpora.documents import CorpusError

PLAIN_TEXTS = ("hello world", "the cat sat on the mat and looked at the other one", "we read many books")
"""Text that no class has a reason to change: it has neither case, digits, marks, accents nor runs of spaces."""

_SUFFIXES = (".model", ".spm")


class SentencePieceFile:
    """A sentencepiece model: text -> pieces, without any special tokens."""

    def __init__(self, path: Path, processor: Any, is_bpe: bool) -> None:
        self.path, self._processor = path, processor
        self.is_bpe = is_bpe
        """Whether it merges pieces (Llama, Gemma) instead of searching the likeliest ones (T5, XLM-R)."""

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text; one that the model does not know is its unknown piece."""
        ids: list[int] = self._processor.encode(text)
        return [self._processor.id_to_piece(number) for number in ids]

    def example(self, tokenizer: Any) -> tuple[str, list[str]]:
        """A plain text that a tokenizer of transformers reads otherwise, and its pieces there."""
        read = {text: tokenizer_pieces(tokenizer, text) for text in PLAIN_TEXTS}
        return next((text, pieces) for text, pieces in read.items() if pieces != self.pieces(text))


def open_sentencepiece(folder: Path, tokenizer: Any = None) -> SentencePieceFile | None:
    """The sentencepiece model of a folder, if possible the one that ``tokenizer`` was made from.

    None if the folder has none, or if such a file is of another kind (tiktoken's).
    """
    named = getattr(tokenizer, "vocab_file", None)
    files = [Path(named)] if isinstance(named, str) and named.endswith(_SUFFIXES) else []
    files += sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    for path in files:
        found = _read(path)
        if found is not None:
            return found
    return None


def reads_plain_text_alike(tokenizer: Any, file: SentencePieceFile) -> bool:
    """Whether a tokenizer of transformers gives the file's pieces for plain text."""
    return all(tokenizer_pieces(tokenizer, text) == file.pieces(text) for text in PLAIN_TEXTS)


def tokenizer_pieces(tokenizer: Any, text: str) -> list[str]:
    """The tokens of a text as a tokenizer of transformers spells them."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]


def _read(path: Path) -> SentencePieceFile | None:
    try:
        with warnings.catch_warnings():
            # The types of its C part have no module, of which Python warns; that warning as an error ends the process.
            warnings.simplefilter("ignore")
            import sentencepiece
            from sentencepiece import sentencepiece_model_pb2
    except Exception as error:  # protobuf has errors of its own for code that was made by a newer one
        said = " ".join(str(error).split())[:200]
        raise CorpusError(
            f"sentencepiece, which reads {path}, does not load beside protobuf ({said}): install 'sentencepiece<0.2.3'"
        ) from error
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.Load(str(path))
        model = sentencepiece_model_pb2.ModelProto.FromString(processor.serialized_model_proto())
    except (OSError, RuntimeError):
        return None
    return SentencePieceFile(path, processor, model.trainer_spec.model_type == model.trainer_spec.BPE)
