"""Explanations of features that other programs wrote, as labels: one file a format, listed in ``FORMATS``.

A format's ``read`` finds the explanations in a file or a folder; ``as_labels`` makes one label a feature of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from extraction_assets.database.explanations.explanation import Explanation
    from extraction_assets.database.label_lines import NumberedFault

FORMATS = {
    "neuronpedia": "a file batch-N.jsonl or batch-N.jsonl.gz of Neuronpedia's explanations, or a folder of them",
    "delphi": "a folder of delphi's files MODULE_latentN.txt, or one of them",
}
"""Module of this folder, which is also the format's name on the command line -> what its files are, for a person."""


class Format(Protocol):
    """A module that reads explanations."""

    def read(self, path: Path, source: str | None) -> Iterator[Explanation | NumberedFault]:
        """The explanations in a file, or in the files of a folder, and a fault for each unreadable line. ``source``
        chooses among those of several SAEs.

        Raises ExplanationsError for files that hold none.
        """
        ...


def explanations_format(name: str) -> Format:
    """The module of a format of ``FORMATS``, which is imported only here."""
    return cast(Format, import_module(f"{__name__}.{name}"))
