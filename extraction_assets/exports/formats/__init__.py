"""The list of export formats, one file each beside this."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from extraction_assets.exports.errors import ExportError

if TYPE_CHECKING:
    from extraction_assets.exports.option import Option
    from extraction_assets.exports.output import Output
    from extraction_assets.exports.source import ExportSource

FORMATS: tuple[str, ...] = (
    "jsonl",
    "parquet",
    "neuronpedia",
    "neuronpedia-upload",
    "circuit-tracer",
    "delphi",
    "sae-dashboard",
)
"""``NAME.py`` beside this for each, with ``_`` for ``-``. Loading a format loads what it writes with; its name alone
loads nothing."""


class ExportFormat(Protocol):
    """What a module beside this has."""

    @property
    def WHAT(self) -> str:
        """One sentence for the documentation: which files it writes."""

    @property
    def READ_BY(self) -> str:
        """Who reads them."""

    @property
    def VERSION(self) -> int:
        """Raised when the same result gives other files: a folder that an earlier version began is not gone on with."""

    @property
    def NEEDS(self) -> tuple[str, ...]:
        """What has to be there beside ``feature_examples``, or is left out of the files: names of assets, or
        ``checkpoint`` for the SAE's weights."""

    @property
    def SEVERAL_SAES(self) -> bool:
        """Whether a folder may hold several SAEs."""

    @property
    def OPTIONS(self) -> Mapping[str, "Option"]:
        """What may be chosen, by name."""

    def check(self, source: "ExportSource", options: Mapping[str, str]) -> None:
        """Raises ExportError for what cannot be written, before anything is: an option that may not be, or something
        that the format needs and is not there. ``options`` has a value for each of ``OPTIONS``."""

    def inside(self, source: "ExportSource", options: Mapping[str, str]) -> str:
        """The folder inside that says what one SAE's files were made from, where several SAEs may share a folder; of
        other formats empty."""

    def write(self, source: "ExportSource", out: "Output", options: Mapping[str, str]) -> None:
        """Writes what is missing in ``out``, after ``check``. Raises ExportError."""


def export_format(name: str) -> ExportFormat:
    """The format of a name. Raises ExportError."""
    require_formats([name])
    loaded: ExportFormat = import_module(f"extraction_assets.exports.formats.{name.replace('-', '_')}")
    return loaded


def require_formats(names: Iterable[str]) -> None:
    """Raises ExportError for a name that no format has. Loads none of them."""
    for name in names:
        if name not in FORMATS:
            raise ExportError(f"no export format {name!r}: there are {', '.join(FORMATS)}")


def chosen_options(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """A value for every option of a format. Raises ExportError for one that it does not have."""
    known = export_format(name).OPTIONS
    for unknown in given.keys() - known.keys():
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ExportError(f"the export {name} has no option {unknown!r}: {there}")
    return {option: given.get(option, one.default) for option, one in known.items()}
