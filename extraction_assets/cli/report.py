"""``report``: features of an extraction in one HTML file to send."""

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extraction_assets.cli.app import count, main
from extraction_assets.cli.feature_numbers import FeatureNumbers
from extraction_assets.cli.out_file import OutFile
from extraction_assets.cli.terminal import echo
from extraction_assets.cli.workspace import open_workspace

if TYPE_CHECKING:
    import sqlalchemy as sa


@main.command()
@click.argument("name")
@click.option("--sae", help="Short name of the SAE, where the extraction has several.")
@click.option("--features", type=FeatureNumbers(), help="Numbers of features, 12,3445.")
@click.option("--labelled", is_flag=True, help="Every feature with a label, mark or note.")
@click.option("--random", "number", type=click.IntRange(min=1), help="So many features that fire, by a fixed seed.")
@click.option("--out", type=OutFile(), help="File to write, its folders too; by default NAME-SAE.html.")
@click.pass_obj
def report(
    module: str,
    name: str,
    sae: str | None,
    features: list[int] | None,
    labelled: bool,
    number: int | None,
    out: Path | None,
) -> None:
    """Write features of extraction NAME, as the browser shows them, into one HTML file that needs nothing else.

    Say which by one of --features, --labelled and --random. The file runs no script and fetches nothing.
    """
    from extraction_assets.browser.one_file import features_page
    from extraction_assets.database.queries.extractions import find_extraction
    from extraction_assets.host.disk import readable_size
    from extraction_assets.stores.sealed import durable_path

    if sum((features is not None, labelled, number is not None)) != 1:
        raise click.UsageError("say which features by one of --features, --labelled and --random")
    workspace = open_workspace(module, name)
    with workspace.read_results() as connection:
        extraction = find_extraction(connection, name, sae)
        if features is not None:
            indices, chosen = features, "chosen by number"
        elif labelled:
            indices, chosen = _labelled(connection, extraction), "every feature with a label, mark or note"
        else:
            indices, chosen = _drawn(connection, extraction, int(number or 0)), "drawn at random by a fixed seed"
        page = features_page(connection, extraction, indices, chosen).encode("utf-8", "backslashreplace")
    path = out or Path(f"{extraction.name}-{extraction.sae}.html").absolute()
    with durable_path(path) as temporary:
        temporary.write_bytes(page)
    echo(f"{path}  {count(len(indices), 'feature')}, {readable_size(len(page))}")


def _labelled(connection: "sa.Connection", extraction: "sa.Row[Any]") -> list[int]:
    from extraction_assets.database.queries.labels import list_labels

    found = [label.neuron_index for label in list_labels(connection, extraction.name, extraction.sae)]
    indices = [index for index in found if index < extraction.latent_dim]
    if not indices:
        raise click.ClickException(f"no feature of {extraction.name}/{extraction.sae} is labelled: label some first")
    return indices


def _drawn(connection: "sa.Connection", extraction: "sa.Row[Any]", number: int) -> list[int]:
    """Some of the features that fire, the same for the same result; all where there are fewer."""
    from extraction_assets.database.queries.overview import firing_select

    firing = list(connection.scalars(firing_select(extraction.id)))
    if not firing:
        raise click.ClickException(f"no feature of {extraction.name}/{extraction.sae} fires")
    return sorted(random.Random(0).sample(firing, min(number, len(firing))))
