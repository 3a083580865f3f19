"""``labels``: what people have written of features, out of the database and into it."""

from typing import IO

import click

from extraction_assets.cli.app import count, main
from extraction_assets.cli.terminal import echo, write_line
from extraction_assets.cli.workspace import Workspace, open_workspace

_MOST_SENTENCES = 20


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
@click.argument("file", type=click.File("rb"))
@click.pass_obj
def import_file(module: str, name: str, file: IO[bytes]) -> None:
    """Read labels of extraction NAME from FILE (- is the standard input), all or none of them.

    Where a feature has a label already, the newer of the two stays. Nothing is removed.
    """
    from extraction_assets.database.label_lines import BadLinesError, read_label_lines
    from extraction_assets.database.labels import import_labels, label_transaction

    workspace = open_workspace(module, name)
    _refuse_unknown(workspace, name)
    try:
        numbered = read_label_lines(file.read().split(b"\n"), name)
        with workspace.results.open() as engine, label_transaction(engine) as connection:
            done = import_labels(connection, name, numbered)
    except BadLinesError as error:
        echo(*error.sentences[:_MOST_SENTENCES], err=True)
        bad = count(len(error.sentences), "line")
        raise click.ClickException(f"{file.name}: {bad} cannot be imported, so nothing was") from None
    echo(
        f"{count(len(numbered), 'label')}: {done.added} added, {done.replaced} replaced older ones, {done.kept} older "
        f"than those here, {done.unchanged} unchanged"
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
