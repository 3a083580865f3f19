"""Labels, marks and notes: the list of what people have written of an extraction, and the forms that write."""

from typing import NamedTuple
from urllib.parse import urlencode

import sqlalchemy as sa

from extraction_assets.browser.page import Action, ActionRequest, Download, Page, PageRequest
from extraction_assets.browser.parameters import BadRequestError
from extraction_assets.database.label_lines import BadLinesError, label_line, read_label_lines
from extraction_assets.database.labels import LabelError, import_labels, save_label
from extraction_assets.database.queries.extractions import UnknownResultError, merges
from extraction_assets.database.queries.labels import LONGEST_NOTE, MARKS, Label, list_labels

_MOST_LINES_NAMED = 20
_COUNTS = ("added", "replaced", "kept", "unchanged")


class Written(NamedTuple):
    """A label in the list."""

    label: Label
    merged: bool
    """Whether there is a page of its feature."""


class LabelsView(NamedTuple):
    """What the page shows."""

    extraction: str
    saes: list[str]
    """Those that are merged."""
    labels: list[Written]
    imported: dict[str, int] | None
    """What the import before has done, by what it did."""
    unmerged: str | None
    """SAEs of labels that it stored of which nothing is merged."""


def labels_view(request: PageRequest) -> LabelsView:
    """The labels of an extraction, by SAE and feature. Raises UnknownResultError for a name of no extraction."""
    name = request.path["extraction"]
    merged, found = _known(request.connection, name)
    counts = {what: request.parameters.integer(what) for what in _COUNTS}
    known = any(number is not None for number in counts.values())
    imported = {what: number or 0 for what, number in counts.items()} if known else None
    unmerged = request.parameters.text("unmerged")
    return LabelsView(name, merged, [Written(one, one.sae in merged) for one in found], imported, unmerged)


def _known(connection: sa.Connection, name: str) -> tuple[list[str], list[Label]]:
    """The merged SAEs of an extraction and its labels. Raises UnknownResultError if there are neither."""
    merged = sorted(sae for of, sae in merges(connection) if of == name)
    found = list_labels(connection, name)
    if not merged and not found:
        raise UnknownResultError(f"no merged results and no labels of extraction {name!r}")
    return merged, found


def labels_file(request: PageRequest) -> str:
    """The labels of an extraction as JSON lines."""
    _, found = _known(request.connection, request.path["extraction"])
    return "".join(f"{label_line(one)}\n" for one in found)


def save(request: ActionRequest) -> str:
    """Stores what the form on a feature's page says of it, and goes back there."""
    path, form = request.path, request.form
    try:
        save_label(
            request.connection,
            path["extraction"],
            path["sae"],
            path["neuron"],
            label=_lines(form.text("label")).strip(),
            mark=form.choice("mark", ("", *MARKS), "") or None,
            note=_lines(form.text("note", 2 * LONGEST_NOTE)).strip(),
        )
    except LabelError as error:
        raise BadRequestError(str(error)) from error
    return str(request.links.feature(path["extraction"], path["sae"], path["neuron"]))


def read_file(request: ActionRequest) -> str:
    """Imports the file of a form, all of it or nothing, and goes back to the list."""
    name, content = request.path["extraction"], request.files.get("file", b"")
    if not content.strip():
        raise BadRequestError("no file was chosen, or it is empty: nothing was imported")
    _known(request.connection, name)
    try:
        done = import_labels(request.connection, name, read_label_lines(content.split(b"\n"), name))
    except BadLinesError as error:
        named, rest = error.sentences[:_MOST_LINES_NAMED], len(error.sentences) - _MOST_LINES_NAMED
        more = f"; and {rest} more" if rest > 0 else ""
        raise BadRequestError(f"nothing was imported: {'; '.join(named)}{more}") from error
    said = {what: getattr(done, what) for what in _COUNTS} | {"unmerged": ", ".join(sorted(done.unmerged))}
    return f"{request.links.labels(name)}?{urlencode({what: value for what, value in said.items() if value != ''})}"


def _lines(text: str | None) -> str:
    """A form sends every line break as two characters."""
    return (text or "").replace("\r\n", "\n")


PAGE = Page("/labels/{extraction}", "labels.html", labels_view)
FILE = Download("/labels/{extraction}.jsonl", "application/jsonl", "labels.jsonl", labels_file)
SAVE = Action("/{extraction}/{sae}/{neuron:number}/label", save)
IMPORT = Action("/labels/{extraction}/import", read_file)
