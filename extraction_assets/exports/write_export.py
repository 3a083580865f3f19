"""Runs an export: checks where it goes, writes what is missing, marks it as finished."""

import contextlib
import gc
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from extraction_assets.catalog import SAE_FEATURES
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.folders import ExportFolder
from extraction_assets.exports.formats import chosen_options, export_format
from extraction_assets.exports.output import Output, Progress, begin, finish
from extraction_assets.exports.source import ExportSource

_OBJECTS_PER_COLLECTION = 500_000


class Exported(NamedTuple):
    """What an export did."""

    features: int
    written: int
    """Files that were written; 0 if all were there."""


def export(
    source: ExportSource, name: str, folder: ExportFolder, progress: Progress, options: Mapping[str, str] | None = None
) -> Exported:
    """Writes features in format ``name`` into a folder, which is new, empty, or holds a part of the same export.

    Raises ExportError; StorageError where the folder is at a URL.
    """
    chosen = chosen_options(name, options or {})
    check([source], name, chosen)
    made_from = manifest_of(source, name, chosen)
    with folder.only_writer(), _rare_garbage_collection():
        begin(folder, made_from)
        out = Output(folder, progress)
        export_format(name).write(source, out, chosen)
        finish(folder, made_from)
    return Exported(len(source.neuron_indices), out.written)


def check(sources: Sequence[ExportSource], name: str, options: Mapping[str, str]) -> None:
    """Raises ExportError for what cannot be written of some SAEs into one folder, before anything is."""
    chosen, taken = chosen_options(name, options), dict[str, str]()
    for source in sources:
        export_format(name).check(source, chosen)
        inside = export_format(name).inside(source, chosen)
        if len(sources) > 1 and not inside:
            raise ExportError(f"a folder of {name} holds one SAE: export {source.title} into one of its own")
        if inside in taken:
            raise ExportError(
                f"{taken[inside]} and {source.title} would both be {inside}: export one of them with another --option, "
                "or into another folder"
            )
        taken[inside] = source.title


@contextlib.contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Lists of examples are millions of objects without a circle, and looking for circles among them takes a third of
    the time of an export."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_PER_COLLECTION, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def manifest_of(source: ExportSource, name: str, options: Mapping[str, str]) -> dict[str, Any]:
    """What decides the bytes of an export; ``options`` has a value for every option of the format."""
    return {
        "format": name,
        "version": export_format(name).VERSION,
        **source.identity(),
        "features": "all" if source.is_whole else _digest(source.neuron_indices),
        "options": dict(options),
        **_inside(source, name, options),
        **_what_is_there(source, export_format(name).NEEDS),
    }


def _inside(source: ExportSource, name: str, options: Mapping[str, str]) -> dict[str, str]:
    """The folder inside that is an SAE's, if the format has one."""
    inside = export_format(name).inside(source, options)
    return {"inside": inside} if inside else {}


def _what_is_there(source: ExportSource, needs: Collection[str]) -> dict[str, bool]:
    """Whether what lies outside the database can be read, for files without it are others."""
    found = {}
    if "checkpoint" in needs:
        found["decoder"] = source.decoder.rows is not None
    if SAE_FEATURES in needs:
        found[SAE_FEATURES] = source.stored_features is not None
    return found


def _digest(neuron_indices: Any) -> str:
    listed = ",".join(map(str, neuron_indices))
    return f"{len(neuron_indices)} features, {hashlib.sha256(listed.encode()).hexdigest()[:16]}"
