"""Text files as a corpus: one file is one document."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from extraction_assets.engine.corpora.documents import CorpusError, document_order
from extraction_assets.engine.standard_library import standard_library_files


class TextFiles:
    """UTF-8 files by name."""

    def __init__(self, names: Sequence[str], files: Sequence[Path], shuffle_seed: int | None = None) -> None:
        order = document_order(len(files), shuffle_seed).tolist()
        self.files = [files[number] for number in order]
        self._names = [names[number] for number in order]

    def documents(self) -> Iterator[tuple[str, str]]:
        for name, file in zip(self._names, self.files, strict=True):
            try:
                text = file.read_text("utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(f"corpus file {file} is not UTF-8 text ({error})") from error
            yield name, text


def standard_library(shuffle_seed: int | None = None) -> TextFiles:
    """The running Python's standard library, one module a document, in a fixed order that mixes modules."""
    names, files = zip(*standard_library_files(), strict=True)
    return TextFiles(names, files, shuffle_seed)
