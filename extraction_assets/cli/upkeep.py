"""``clean`` and ``delete``: removing what is no longer wanted, after showing it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import command_line, count, main
from extraction_assets.cli.declared import declared_extractions, load_definitions, open_results
from extraction_assets.terminal import echo, styled
from extraction_assets.visible_text import visible

if TYPE_CHECKING:
    import dagster as dg

    from extraction_assets.stores.chunk_store import ChunkStore
    from extraction_assets.upkeep.files import Item

_FORCE = click.option("--force", is_flag=True, help="Also while a run of the extraction seems alive.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--dry-run", is_flag=True, help="Only list.")
@_YES
@_FORCE
@click.pass_obj
def clean(module: str, names: tuple[str, ...], dry_run: bool, yes: bool, force: bool) -> None:
    """List, then remove, files that nothing uses: of extractions NAME, or of all that are declared, and corpora.

    That is: chunk files of other settings than the current ones, what `keep:` says is not to be kept once it is merged,
    files of SAEs that are no longer declared, temporaries of killed processes, and corpora that no extraction uses.
    Extractions that this module does not declare are left as they are.
    """
    from extraction_assets.disk import readable_size
    from extraction_assets.upkeep.clean import KINDS, find_garbage, remove_garbage

    definitions = load_definitions(module)
    declared = declared_extractions(definitions)
    unknown = [name for name in names if name not in declared]
    if unknown:
        raise click.ClickException(
            f"no extraction {unknown[0]!r} is declared (only {', '.join(declared) or 'none'}): "
            f"what is left of one is removed by {command_line(module)} delete"
        )
    if not dry_run and not force:
        _refuse_while_alive(names or declared)
    store = _store(definitions)
    garbage = find_garbage(declared, names, store, _merged(definitions))
    for kind in KINDS:
        _list_items(kind, [one for one in garbage.items if one.kind == kind])
    for note in garbage.notes:
        echo(f"note: {note}")
    total = readable_size(sum(one.bytes for one in garbage.items))
    if not garbage.items:
        echo("nothing to remove")
        return
    echo(f"{total} in all")
    if dry_run or not (yes or click.confirm("Remove them?")):
        echo("nothing was removed")
        return
    freed, stayed = remove_garbage(garbage, store)
    echo(*stayed, f"freed {readable_size(freed)}")


@main.command()
@click.argument("name")
@click.option("--sae", help="Only this SAE of the extraction.")
@click.option("--history", "with_history", is_flag=True, help="Also make Dagster forget the assets' materializations.")
@click.option("--dry-run", is_flag=True, help="Only list.")
@_YES
@_FORCE
@click.pass_obj
def delete(module: str, name: str, sae: str | None, with_history: bool, dry_run: bool, yes: bool, force: bool) -> None:
    """Remove the rows and files of extraction NAME, declared or not, after showing them and asking.

    Samples and corpora that another extraction uses stay.
    """
    import dagster as dg

    from extraction_assets.disk import readable_size
    from extraction_assets.upkeep.delete import find_holding, remove_holding
    from extraction_assets.upkeep.runs import history, refuse_while_alive

    definitions = load_definitions(module)
    store, what = _store(definitions), f"{name}/{sae}" if sae else name
    holding, rows = find_holding(store, name, sae), _rows(definitions, name, sae)
    with dg.DagsterInstance.get() as instance:
        keys = history(instance, name, sae) if with_history else []
        if not holding.items and not rows and not keys:
            saes = _known_saes(definitions, name) if sae else []
            known, kind = (saes, f"SAEs of {name}") if saes else (_known(definitions), "extractions")
            raise click.ClickException(
                f"there is nothing of {what}; {kind} with files or rows: {', '.join(known) or 'none'}"
            )
        if not dry_run and not force:
            refuse_while_alive(instance, name)
        _list_rows(rows)
        _list_items("files", holding.items)
        if keys:
            echo(f"Dagster's history of {count(len(keys), 'asset')}")
        for path in holding.left:
            echo(f"note: {path} is not of this package and stays")
        for note in holding.notes:
            echo(f"note: {note}")
        if dry_run or not (yes or _is_typed(what)):
            echo("nothing was removed")
            return
        _delete_rows(definitions, rows, name, sae)
        freed = remove_holding(store, name, sae)
        instance.wipe_assets(keys)
    echo(f"removed {what}: {count(sum(rows.values()), 'row')}, {readable_size(freed)} of files")
    declared = declared_extractions(definitions).get(name)
    if declared and (sae is None or sae in declared.saes):
        echo(f"{what} is still declared: {command_line(module)} run {name} computes it again")


def _refuse_while_alive(names: Iterable[str]) -> None:
    import dagster as dg

    from extraction_assets.upkeep.runs import refuse_while_alive

    with dg.DagsterInstance.get() as instance:
        for name in names:
            refuse_while_alive(instance, name)


def _is_typed(what: str) -> bool:
    """Whether the user types the name of what is to be removed."""
    typed: str = click.prompt(visible(f"Type {what} to remove this"), default="", show_default=False)
    return typed == what


def _store(definitions: "dg.Definitions") -> "ChunkStore":
    store: ChunkStore = (definitions.resources or {})["chunk_store"].open()
    return store


def _merged(definitions: "dg.Definitions") -> Mapping[tuple[str, str], str]:
    from extraction_assets.database.queries import merge_fingerprints

    if not (definitions.resources or {})["results"].exists():
        return {}
    with open_results(definitions) as engine, engine.connect() as connection:
        return merge_fingerprints(connection)


def _rows(definitions: "dg.Definitions", name: str, sae: str | None) -> dict[str, int]:
    from extraction_assets.database.remove import count_results

    if not (definitions.resources or {})["results"].exists():
        return {}
    with open_results(definitions) as engine, engine.connect() as connection:
        return count_results(connection, name, sae)


def _delete_rows(definitions: "dg.Definitions", rows: dict[str, int], name: str, sae: str | None) -> None:
    from extraction_assets.database.connect import write_transaction
    from extraction_assets.database.remove import delete_results

    if rows:
        with open_results(definitions) as engine, write_transaction(engine) as connection:
            delete_results(connection, name, sae)


def _known(definitions: "dg.Definitions") -> list[str]:
    """Extractions that have files or rows."""
    from extraction_assets.upkeep.files import stored_extractions

    return sorted({*stored_extractions(_store(definitions)), *(name for name, _ in _merged(definitions))})


def _known_saes(definitions: "dg.Definitions", name: str) -> list[str]:
    """SAEs of an extraction that have files or rows."""
    from extraction_assets.upkeep.files import stored_saes

    stored = stored_saes(_store(definitions).root / name)
    return sorted({*stored, *(sae for merged, sae in _merged(definitions) if merged == name)})


def _list_rows(rows: dict[str, int]) -> None:
    if rows:
        echo(styled("rows", bold=True))
    for table, number in rows.items():
        echo(f"  {table:40} {number:8}")


def _list_items(heading: str, items: "list[Item]") -> None:
    """Number and size of the files of each asset, under a heading."""
    from extraction_assets.disk import readable_size

    if items:
        echo(styled(heading, bold=True))
    for asset in dict.fromkeys(one.asset for one in items):
        own = [one for one in items if one.asset == asset]
        number = count(len(own), "folder" if own[0].path.is_dir() else "file")
        echo(f"  {asset:40} {number:>12} {readable_size(sum(one.bytes for one in own)):>12}")
