"""Text files as a corpus: one file is one document."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from extraction_assets.engine.corpora.decoding import read_text
from extraction_assets.engine.corpora.documents import document_order
from extraction_assets.engine.corpora.standard_library import standard_library_files


class TextFiles:
    """UTF-8 files by name."""

    def __init__(self, names: Sequence[str], files: Sequence[Path], shuffle_seed: int | None = None) -> None:
        order = document_order(len(files), shuffle_seed).tolist()
        self.files = [files[number] for number in order]
        self._names = [names[number] for number in order]

    @property
    def num_documents(self) -> int:
        return len(self.files)

    def documents(self) -> Iterator[tuple[str, str]]:
        for name, file in zip(self._names, self.files, strict=True):
            yield name, read_text(file)


def standard_library(shuffle_seed: int | None = None) -> TextFiles:
    """The running Python's standard library, one module a document, in a fixed order that mixes modules."""
    names, files = zip(*standard_library_files(), strict=True)
    return TextFiles(names, files, shuffle_seed)
