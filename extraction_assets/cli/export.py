"""``export``: results in the formats that others read."""

import logging
import os
from typing import TYPE_CHECKING, Any

import click

from extraction_assets.cli.app import count, main
from extraction_assets.cli.feature_numbers import FeatureNumbers
from extraction_assets.cli.terminal import echo
from extraction_assets.cli.workspace import Workspace, open_workspace
from extraction_assets.exports.formats import FORMATS

if TYPE_CHECKING:
    import sqlalchemy as sa

    from extraction_assets.exports.checkpoints_and_files import Declared


def _options(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` each."""
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{one!r} is not of the form KEY=VALUE")
        found[key.replace("-", "_")] = value
    return found


@main.command()
@click.argument("name")
@click.option(
    "--sae",
    "saes",
    multiple=True,
    help="Short name of the SAE, where the extraction has several; several times, or by default all, where the format "
    "has a folder for several.",
)
@click.option("--format", "format_name", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option(
    "--out",
    required=True,
    metavar="DIR|URL",
    help="Folder to write into, here or in object storage (s3://bucket/folder): new (folders above it are made), "
    "empty, or begun by this export.",
)
@click.option("--features", type=FeatureNumbers(), help="Numbers of features, 12,3445; by default all.")
@click.option("--option", "options", multiple=True, callback=_options, metavar="KEY=VALUE", help="Of the format.")
@click.pass_obj
def export(
    module: str,
    name: str,
    saes: tuple[str, ...],
    format_name: str,
    out: str,
    features: list[int] | None,
    options: dict[str, str],
) -> None:
    """Write merged features of extraction NAME into a folder, in a format that other programs read.

    An export that was interrupted goes on with the files that are missing when it is started again. docs/exports.md
    describes the formats and their options.
    """
    from extraction_assets.execution.progress import progress
    from extraction_assets.exports.folders import export_folder_at
    from extraction_assets.exports.source import ExportSource
    from extraction_assets.exports.write_export import check
    from extraction_assets.exports.write_export import export as run_export

    folder = export_folder_at(out)
    workspace = open_workspace(module, name)
    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    with workspace.read_results() as connection:
        sources = [
            ExportSource(connection, extraction, features, _declared(workspace, name, extraction.sae))
            for extraction in _chosen(connection, name, saes, format_name)
        ]
        check(sources, format_name, options)
        for source in sources:
            total = len(source.neuron_indices)
            with progress(f"{format_name} of {source.title}", total, "features", logging.getLogger(__name__)) as shown:
                done = run_export(source, format_name, folder, shown, options)
            what = f"{count(done.written, 'file')} written" if done.written else "all of it was there"
            of = f"{source.extraction.sae}: " if len(sources) > 1 else ""
            echo(f"{folder}  {of}{count(done.features, 'feature')}, {what}")


def _chosen(connection: "sa.Connection", name: str, saes: tuple[str, ...], format_name: str) -> "list[sa.Row[Any]]":
    """The results of the SAEs that are named; without a name of the only one, or of all that may share a folder."""
    from extraction_assets.database.queries.extractions import find_extraction, merges
    from extraction_assets.exports.formats import export_format

    merged = [sae for merged_name, sae in merges(connection) if merged_name == name]
    if not saes and len(merged) > 1 and export_format(format_name).SEVERAL_SAES:
        saes = tuple(merged)
    return [find_extraction(connection, name, sae) for sae in dict.fromkeys(saes or (None,))]


def _declared(workspace: Workspace, name: str, sae: str) -> "Declared | None":
    """What the module declares of an SAE; what is merged can be exported without."""
    from extraction_assets.exports.checkpoints_and_files import Declared

    settings = workspace.extractions.get(name)
    return Declared(settings, workspace.store) if settings is not None and sae in settings.saes else None
