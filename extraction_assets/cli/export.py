"""``export``: results in the formats that others read."""

import logging
import os
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import count, main
from extraction_assets.cli.feature_numbers import FeatureNumbers
from extraction_assets.cli.terminal import echo
from extraction_assets.cli.workspace import Workspace, open_workspace
from extraction_assets.exports.formats import FORMATS

if TYPE_CHECKING:
    from extraction_assets.exports.declared import Declared


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
@click.option("--sae", help="Short name of the SAE, where the extraction has several.")
@click.option("--format", "format_name", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option(
    "--out",
    required=True,
    metavar="DIR|URL",
    help="Folder to write into, here or in object storage (s3://bucket/folder): new, empty, or begun by this export.",
)
@click.option("--features", type=FeatureNumbers(), help="Numbers of features, 12,3445; by default all.")
@click.option("--option", "options", multiple=True, callback=_options, metavar="KEY=VALUE", help="Of the format.")
@click.pass_obj
def export(
    module: str,
    name: str,
    sae: str | None,
    format_name: str,
    out: str,
    features: list[int] | None,
    options: dict[str, str],
) -> None:
    """Write merged features of extraction NAME into a folder, in a format that other programs read.

    An export that was interrupted goes on with the files that are missing when it is started again. docs/exports.md
    describes the formats and their options.
    """
    from extraction_assets.database.queries.extractions import find_extraction
    from extraction_assets.execution.progress import progress
    from extraction_assets.exports.folders import export_folder_at
    from extraction_assets.exports.run import export as run_export
    from extraction_assets.exports.source import ExportSource

    folder = export_folder_at(out)
    workspace = open_workspace(module, name)
    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    with workspace.read_results() as connection:
        extraction = find_extraction(connection, name, sae)
        source = ExportSource(connection, extraction, features, _declared(workspace, name, extraction.sae))
        total = len(source.neuron_indices)
        with progress(f"{format_name} of {source.title}", total, "features", logging.getLogger(__name__)) as shown:
            done = run_export(source, format_name, folder, shown, options)
    what = f"{count(done.written, 'file')} written" if done.written else "all of it was there"
    echo(f"{folder}  {count(done.features, 'feature')}, {what}")


def _declared(workspace: Workspace, name: str, sae: str) -> "Declared | None":
    """What the module declares of an SAE; what is merged can be exported without."""
    from extraction_assets.exports.declared import Declared

    settings = workspace.extractions.get(name)
    return Declared(settings, workspace.store) if settings is not None and sae in settings.saes else None
