"""``list`` and ``run``: what is declared, and running it."""

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extraction_assets.cli.app import main
from extraction_assets.cli.declared import declared_extractions, find_extraction, load_definitions, open_results
from extraction_assets.cli.show import show_features

if TYPE_CHECKING:
    import dagster as dg

    from extraction_assets.settings import ExtractionSettings


def _batch_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    from extraction_assets.engine.batching import parse_batch_size

    try:
        return None if value is None else parse_batch_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@main.command("list")
@click.pass_obj
def list_command(module: str) -> None:
    """List the declared extractions, their SAEs and how much is done."""
    for settings in declared_extractions(load_definitions(module)).values():
        click.echo(click.style(settings.name, bold=True) + f"  {settings.language_model.path}")
        for name, sae in settings.saes.items():
            click.echo(f"  {name:12} {sae.hook:20} {sae.path}")
        click.echo(
            f"  {settings.evaluation_samples} samples of {settings.corpus.max_length} tokens in "
            f"{len(settings.chunk_keys)} chunks, the {settings.top_k_examples} strongest examples of every feature"
        )


@main.command()
@click.argument("name")
@click.option(
    "--chunks",
    metavar="A:B",
    help="Only chunks A to B-1, counted from 0, as in a Python slice. Merges only once no other chunk is missing.",
)
@click.option("--missing", is_flag=True, help="Only chunks without a durable top-k table of the current settings.")
@click.option("--device", help="auto, cpu, cuda:0, …; as in the GPU resource, like the options below.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of one forward pass.")
@click.option("--vectorization-batch-size", metavar="auto|N", callback=_batch_size, help="Samples reduced at once.")
@click.option("--vectorized/--legacy", default=None, help="The fast engine, or the sequential loop it replaces.")
@click.pass_context
def run(ctx: click.Context, name: str, chunks: str | None, missing: bool, **options: Any) -> None:
    """Run extraction NAME: its corpus, then its chunks, then the merge of each SAE.

    Every part is a run of its own on the persistent Dagster instance, so that the UI shows it afterwards.
    """
    from extraction_assets.runner import Runner

    definitions = load_definitions(ctx.obj)
    settings = find_extraction(definitions, name)
    chosen = _chosen_chunks(settings, chunks)
    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    started = time.perf_counter()
    with Runner(definitions, settings, options, verbose=ctx.parent.params["debug"] if ctx.parent else False) as runner:
        click.echo(f"corpus of {name}", err=True)
        runner.materialize_corpus()
        keys = [key for key in runner.missing_chunks() if key in chosen] if missing else chosen
        for first, last in runner.ranges(keys):
            click.echo(f"chunks {first} to {last}", err=True)
            runner.materialize_chunks(first, last, only_missing=missing)
        left = runner.missing_chunks()
        if left:
            click.echo(f"{len(left)} of {len(settings.chunk_keys)} chunks are missing: nothing merged yet")
            return
        for sae in settings.saes:
            click.echo(f"merge of {sae}", err=True)
            runner.merge(sae)
    seconds = time.perf_counter() - started
    _say_what_is_there(definitions, settings, runner.store_root)
    click.echo(f"\n{len(keys)} chunks, {len(settings.saes)} merge(s): {seconds:.1f} s")


def _say_what_is_there(definitions: "dg.Definitions", settings: "ExtractionSettings", store: Path) -> None:
    """The end of a complete run: five features, and where things are."""
    from extraction_assets.database_urls import shown_url

    first = next(iter(settings.saes))
    click.echo(f"\nFive features of {settings.name}/{first}, [strongest token] in context:\n")
    with open_results(definitions) as engine:
        show_features(engine, settings.name, None, first, limit=3, width=8)
        click.echo(f"database   {shown_url(engine.url)}")
    click.echo(f"files      {store}")
    click.echo(f"more       extraction-assets show {settings.name} FEATURE --sae {first}")
    click.echo("UI         extraction-assets ui")


def _chosen_chunks(settings: "ExtractionSettings", chunks: str | None) -> list[str]:
    """The keys that a slice of all chunks holds."""
    if chunks is None:
        return settings.chunk_keys
    match = re.fullmatch(r"(\d*):(\d*)", chunks)
    if not match:
        raise click.ClickException(f"--chunks takes A:B with whole numbers, such as 0:4, got {chunks!r}")
    start, stop = (int(text) if text else None for text in match.groups())
    inside = settings.chunk_keys[slice(start, stop)]
    if not inside:
        raise click.ClickException(f"--chunks {chunks} holds none of the {len(settings.chunk_keys)} chunks")
    return inside
