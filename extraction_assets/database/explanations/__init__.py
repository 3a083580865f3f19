"""Explanations of features that other programs wrote, as labels: one file a format, listed in ``FORMATS``.

A format's ``read`` finds the explanations in a file or a folder; ``as_labels`` makes one label a feature of them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from extraction_assets.database.explanations import delphi, neuronpedia
from extraction_assets.database.explanations.explanation import Explanation
from extraction_assets.database.label_lines import NumberedFault


class Format(Protocol):
    """A module that reads explanations."""

    ABOUT: str
    """What its files are, for a person."""

    def read(self, path: Path, source: str | None) -> Iterator[Explanation | NumberedFault]:
        """The explanations in a file, or in the files of a folder, and a fault for each line that is none. ``source``
        chooses among those of several SAEs.

        Raises ExplanationsError for files that hold none.
        """
        ...


FORMATS: dict[str, Format] = {"neuronpedia": neuronpedia, "delphi": delphi}
"""Formats of explanations by the names that the command line has for them."""
