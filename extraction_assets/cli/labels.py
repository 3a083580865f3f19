"""``labels``: what people and programs have written of features, out of the database and into it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import count, main
from extraction_assets.cli.terminal import echo, write_line
from extraction_assets.cli.workspace import Workspace, open_workspace
from extraction_assets.database.explanations import FORMATS

if TYPE_CHECKING:
    from extraction_assets.database.label_lines import LabelLines
    from extraction_assets.database.labels import Imported

_MOST_SENTENCES = 20
_JSONL = "jsonl"
_ABOUT_FORMATS = " ".join(f"{name}: {about}." for name, about in FORMATS.items())


@main.group()
def labels() -> None:
    """Export and import the labels, marks and notes of features as JSON lines (docs/browser.md says what a line is)."""


@labels.command("export")
@click.argument("name")
@click.option("--sae", help="Only this SAE of the extraction.")
@click.pass_obj
def export_labels(module: str, name: str, sae: str | None) -> None:
    """Print the labels of extraction NAME, one JSON object a line: `labels export NAME > labels.jsonl`."""
    from extraction_assets.database.label_lines import label_line
    from extraction_assets.database.queries.labels import list_labels

    workspace = open_workspace(module, name)
    with workspace.read_results() as connection:
        found = list_labels(connection, name, sae)
    if not found:
        _refuse_unknown(workspace, name)
        echo(f"no feature of {name}/{sae} is labelled" if sae else f"no feature of {name} is labelled", err=True)
    for label in found:
        write_line(label_line(label))


@labels.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, allow_dash=True))
@click.option(
    "--format",
    "file_format",
    type=click.Choice([_JSONL, *FORMATS]),
    default=_JSONL,
    show_default=True,
    help=f"{_JSONL}: what `labels export` writes. {_ABOUT_FORMATS}",
)
@click.option("--sae", help="SAE whose features are explained, with --format; not needed where NAME has one alone.")
@click.option("--source", help="Which of several sources (neuronpedia) or modules (delphi) the SAE is, with --format.")
@click.option("--replace", is_flag=True, help="With --format: take explanations in place of labels that are there.")
@click.pass_obj
def import_file(
    module: str, name: str, file: str, file_format: str, sae: str | None, source: str | None, replace: bool
) -> None:
    """Read labels of extraction NAME from FILE (- is the standard input), all or none of them.

    Where a feature has a label already, the newer of the two stays. Nothing is removed. Explanations of another
    --format are for features without a label: one that is there stays, unless --replace is given.
    """
    from extraction_assets.database.label_lines import BadLinesError

    if file_format == _JSONL and (sae or source or replace):
        raise click.UsageError("--sae, --source and --replace are for explanations: name their --format")
    workspace = open_workspace(module, name)
    _refuse_unknown(workspace, name)
    try:
        if file_format == _JSONL:
            lines = _read_lines(file, name)
        else:
            lines = _read_explanations(file, name, file_format, sae or _only_sae(workspace, name), source)
        done = _store(workspace, name, lines, explained=file_format != _JSONL, replace=replace)
    except BadLinesError as error:
        echo(*error.sentences[:_MOST_SENTENCES], err=True)
        bad = count(len(error.sentences), "line")
        shown = "<stdin>" if file == "-" else file
        raise click.ClickException(f"{shown}: {bad} cannot be imported, so nothing was") from None
    _report(done, len(lines.labels), explained=file_format != _JSONL)


def _read_lines(file: str, name: str) -> "LabelLines":
    from extraction_assets.database.label_lines import read_label_lines

    with click.open_file(file, "rb") as opened:
        return read_label_lines(opened.read().split(b"\n"), name)


def _read_explanations(file: str, name: str, file_format: str, sae: str, source: str | None) -> "LabelLines":
    from extraction_assets.database.explanations import explanations_format
    from extraction_assets.database.explanations.explanation import as_labels

    if file == "-":
        raise click.UsageError(f"--format {file_format} reads files, not the standard input")
    return as_labels(explanations_format(file_format).read(Path(file), source), name, sae)


def _only_sae(workspace: Workspace, name: str) -> str:
    """The SAE of an extraction that has one alone, declared or merged."""
    declared = workspace.extractions[name].saes if name in workspace.extractions else ()
    known = sorted({*declared, *(sae for merged, sae in workspace.merges() if merged == name)})
    if len(known) != 1:
        raise click.UsageError(f"say by --sae which SAE is explained; {name} has: {', '.join(known)}")
    return known[0]


def _store(workspace: Workspace, name: str, lines: "LabelLines", *, explained: bool, replace: bool) -> "Imported":
    from extraction_assets.database.labels import import_explanations, import_labels, label_transaction

    with workspace.results.open() as engine, label_transaction(engine) as connection:
        if explained:
            return import_explanations(connection, name, lines, replace=replace)
        return import_labels(connection, name, lines)


def _report(done: "Imported", found: int, *, explained: bool) -> None:
    kept = "of features that have a label" if explained else "older than those here"
    replaced = "in place of others" if explained else "replaced older ones"
    echo(
        f"{count(found, 'label')}: {done.added} added, {done.replaced} {replaced}, {done.kept} {kept}, "
        f"{done.unchanged} unchanged"
    )
    if done.unmerged:
        saes = ", ".join(sorted(done.unmerged))
        total = sum(done.unmerged.values())
        echo(f"{total} of them are of SAEs of which nothing is merged yet ({saes}): pages show them after that")


def _refuse_unknown(workspace: Workspace, name: str) -> None:
    """Raises ClickException for a name of no extraction, declared or merged."""
    known = {*workspace.extractions, *(merged for merged, _ in workspace.merges())}
    if name not in known:
        raise workspace.no_extraction(name, f"there are: {', '.join(sorted(known)) or 'none'}")
