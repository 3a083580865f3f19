"""``show`` and ``status``: what is there."""

from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import command_line, count, few, main
from extraction_assets.cli.declared import (
    declared_extractions,
    find_extraction,
    load_definitions,
    merged_times,
    open_results,
)
from extraction_assets.terminal import echo

if TYPE_CHECKING:
    import dagster as dg
    import sqlalchemy as sa

    from extraction_assets.plan import ExtractionPlan
    from extraction_assets.settings import ExtractionSettings


@main.command()
@click.argument("name")
@click.argument("feature", type=int, required=False)
@click.option("--sae", help="Short name of the SAE, where the extraction has several.")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(min=1), help="Examples of a feature.")
@click.option("--context", "width", default=12, show_default=True, type=click.IntRange(min=0), help="Tokens each side.")
@click.pass_obj
def show(module: str, name: str, feature: int | None, sae: str | None, limit: int, width: int) -> None:
    """Show examples of FEATURE in context; without FEATURE, of five features that are easy to read."""
    definitions = load_definitions(module)
    known = set(declared_extractions(definitions))
    if name not in known:  # it may have been merged before it was taken out of the module
        known |= {merged for merged, _ in merged_times(definitions)}
    if name not in known:
        raise click.ClickException(f"no extraction {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
    with open_results(definitions) as engine:
        show_features(engine, name, feature, sae, limit, width)


def show_features(engine: "sa.Engine", name: str, feature: int | None, sae: str | None, limit: int, width: int) -> None:
    from extraction_assets.database import queries
    from extraction_assets.terminal import feature_lines

    with engine.connect() as connection:
        extraction = queries.find_extraction(connection, name, sae)
        chosen = [feature] if feature is not None else queries.readable_features(connection, extraction.id)
        for index in chosen:
            statistics = queries.find_feature(connection, extraction.id, index)
            examples = queries.examples_of(connection, extraction.id, index, limit)
            echo(*feature_lines(statistics, examples, width), "")


@main.command()
@click.argument("name")
@click.pass_obj
def status(module: str, name: str) -> None:
    """Say which chunks of extraction NAME are done, stale (made from other settings) or missing, and what is merged."""
    import dagster as dg

    from extraction_assets.assets.pending import Pending
    from extraction_assets.plan import CorpusNotReady, ExtractionPlan
    from extraction_assets.stores.chunk_store import chunk_assets
    from extraction_assets.upkeep.changes import changes_on_disk

    definitions = load_definitions(module)
    settings = find_extraction(definitions, name)
    store = definitions.resources["chunk_store"].open()  # type: ignore[index]
    changes, missing = changes_on_disk(settings, store), f"{command_line(module)} run {name} --missing"
    try:
        plan = ExtractionPlan(settings, store)
    except CorpusNotReady as error:
        nothing = f"all {count(len(settings.chunk_keys), 'chunk')} are missing"
        echo(f"{error}, or `{missing}`", *(changes or [nothing]))
        _echo_merges(definitions, settings)
        return
    echo(f"corpus: {len(plan.corpus)} samples, {plan.corpus.folder}", *changes)
    echo(f"{'':28} {'done':>6} {'stale':>6} {'missing':>8}")
    for asset, sae in chunk_assets(settings.saes):
        states = [plan.chunk_state(asset, key, sae) for key in settings.chunk_keys]
        counts = "{:6} {:6} {:8}".format(*(states.count(s) for s in ("done", "stale", "missing")))
        kept = "" if getattr(settings.keep, asset) else "   not kept: clean removes what is merged"
        echo(f"{(sae + '/' if sae else '') + asset:28} {counts}{kept}")
    with dg.DagsterInstance.get() as instance:
        unrecorded = Pending(plan, instance).unrecorded
    if unrecorded:
        number = f"{len(unrecorded)} of {count(len(settings.chunk_keys), 'chunk')}"
        echo(f"{number} on disk but not recorded in Dagster: {few(unrecorded)}; `{missing}` records them")
    with open_results(definitions) as engine:
        for sae in settings.saes:
            echo(f"{sae + '/feature_examples':28} {_merge_state(engine, plan, sae)}")


def _echo_merges(definitions: "dg.Definitions", settings: "ExtractionSettings") -> None:
    """What is merged of an extraction whose corpus is not current."""
    merged = merged_times(definitions)
    for sae in settings.saes:
        at = merged.get((settings.name, sae))
        if at:
            echo(f"{sae + '/feature_examples':28} merged {at:%Y-%m-%d %H:%M} UTC, from an earlier corpus")


def _merge_state(engine: "sa.Engine", plan: "ExtractionPlan", sae: str) -> str:
    """Whether the database holds the merge of the current chunks."""
    import sqlalchemy as sa

    from extraction_assets.database.tables import extractions

    own = (extractions.c.name == plan.settings.name) & (extractions.c.sae == sae)
    with engine.connect() as connection:
        row = connection.execute(sa.select(extractions).where(own)).one_or_none()
    if row is None:
        return "not merged yet"
    current = row.fingerprint == plan.merge_fingerprint(sae)
    return f"merged {row.finished_at:%Y-%m-%d %H:%M} UTC" + ("" if current else ", stale: made from other settings")
