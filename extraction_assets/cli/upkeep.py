"""``clean`` and ``delete``: list unused or unwanted results, then remove them."""

import contextlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import command_line, count, main
from extraction_assets.cli.terminal import echo, styled
from extraction_assets.cli.workspace import Workspace, open_workspace
from extraction_assets.engine.corpora.visible_text import visible

if TYPE_CHECKING:
    import dagster as dg

    from extraction_assets.stores.recognised_files import Item
    from extraction_assets.upkeep.clean import Merged

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

    These are: chunk files of other settings than the current ones, merged files that `keep:` does not keep, files of
    SAEs that are no longer declared, temporaries of killed processes, corpora that no extraction uses, and
    Parquet files of results that were replaced.
    Extractions that this module does not declare are left as they are.
    """
    from extraction_assets.host.disk import readable_size
    from extraction_assets.stores.in_use import removing
    from extraction_assets.upkeep.clean import KINDS, find_garbage, remove_garbage

    workspace = open_workspace(module, *names)
    declared, store = workspace.extractions, workspace.store
    unknown = [name for name in names if name not in declared]
    if unknown and unknown[0] in [one.name for one in workspace.not_loaded]:
        workspace.find(unknown[0])
    if unknown:
        raise click.ClickException(
            f"no extraction {unknown[0]!r} is declared (only {', '.join(declared) or 'none'}): "
            f"what is left of one is removed by {command_line(module)} delete"
        )
    with contextlib.nullcontext() if dry_run else removing(store.root, names or declared, force=force):
        if not dry_run and not force:
            _refuse_while_alive(names or declared)
        garbage = find_garbage(declared, names, store, _merged(workspace))
        for kind in KINDS:
            _list_items(kind, [one for one in garbage.items if one.kind == kind])
        for note in garbage.notes:
            echo(f"note: {note}")
        replaced = 0 if names else _sweep_results(workspace, remove=False)
        if replaced:
            echo(f"files of results that were replaced or deleted: {readable_size(replaced)}")
        total = readable_size(sum(one.bytes for one in garbage.items) + replaced)
        if not garbage.items and not replaced:
            echo("nothing to remove")
            return
        echo(f"{total} in all")
        if dry_run or not (yes or click.confirm("Remove them?")):
            echo("nothing was removed")
            return
        freed, stayed = remove_garbage(garbage, store)
        freed += _sweep_results(workspace, remove=True) if replaced else 0
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

    Samples and corpora that another extraction uses stay, and so do labels and notes, which are kept by name.
    """
    from extraction_assets.host.disk import readable_size
    from extraction_assets.stores.in_use import removing
    from extraction_assets.upkeep.delete import find_stored_files

    workspace = open_workspace(module)
    store, what = workspace.store, f"{name}/{sae}" if sae else name
    stored, rows = find_stored_files(store, name, sae), _rows(workspace, name, sae)
    keys = _history(name, sae) if with_history else []
    if not stored.items and not rows and not keys:
        saes = _known_saes(workspace, name) if sae else []
        known, kind = (saes, f"SAEs of {name}") if saes else (_known(workspace), "extractions")
        raise click.ClickException(
            f"{what} has no files or rows; {kind} with files or rows: {', '.join(known) or 'none'}"
        )
    with contextlib.nullcontext() if dry_run else removing(store.root, [name], force=force):
        if not dry_run and not force:
            _refuse_while_alive([name])
        _list_rows(rows)
        _list_items("files", stored.items)
        if keys:
            echo(f"Dagster's history of {count(len(keys), 'asset')}")
        for path in stored.left:
            echo(f"note: {store.files.address(path)} is not of this package and stays")
        for note in [*stored.notes, *_labels_stay(workspace, name, sae)]:
            echo(f"note: {note}")
        if dry_run or not (yes or _is_typed(what)):
            echo("nothing was removed")
            return
        freed = _delete_rows_and_files(workspace, rows, name, sae)
        _forget(keys)
    echo(f"removed {what}: {count(sum(rows.values()), 'row')}, {readable_size(freed)} of files")
    declared = workspace.extractions.get(name)
    if declared and (sae is None or sae in declared.saes):
        echo(f"{what} is still declared: {command_line(module)} run {name} computes it again")


def _sweep_results(workspace: Workspace, *, remove: bool) -> int:
    """Bytes of files of the results that nothing uses any more, of a database that has such files."""
    from extraction_assets.database.backends import backend_of
    from extraction_assets.database.errors import DatabaseError

    try:
        with workspace.results.read() as engine:
            return backend_of(engine).sweep(engine, remove=remove)
    except DatabaseError as error:
        echo(f"note: files of replaced results stay: {error}", err=True)
        return 0


def _refuse_while_alive(names: Iterable[str]) -> None:
    """ClickException or RunAlive if a run of one of these is under way, as far as that can be known."""
    from extraction_assets.dagster_instance.dead_runs import runs_in_progress
    from extraction_assets.host.locations import HistoryUnavailableError, dagster_home
    from extraction_assets.upkeep.runs import ask_history, refuse_while_alive

    try:
        for name in names:
            ask_history(partial(refuse_while_alive, extraction=name))
    except HistoryUnavailableError as error:
        for holder in runs_in_progress(dagster_home()):
            raise click.ClickException(
                f"{holder} computes a run, of which extraction is not known ({error}): wait for it, or use --force if "
                "it is of another extraction"
            ) from None
        echo(f"note: {error}; no process that computes a run was found", err=True)


def _is_typed(what: str) -> bool:
    """Whether the user types the name of what is to be removed."""
    typed: str = click.prompt(visible(f"Type {what} to remove this"), default="", show_default=False)
    return typed == what


def _history(name: str, sae: str | None) -> "list[dg.AssetKey]":
    from extraction_assets.upkeep.runs import ask_history, history

    return ask_history(lambda instance: history(instance, name, sae))


def _forget(keys: "list[dg.AssetKey]") -> None:
    from extraction_assets.upkeep.runs import ask_history

    if keys:
        ask_history(lambda instance: instance.wipe_assets(keys))


def _merged(workspace: Workspace) -> "Merged":
    """What is merged; None, with a note, where the database cannot be read."""
    from extraction_assets.database.errors import DatabaseError
    from extraction_assets.database.queries.extractions import merge_fingerprints

    try:
        with workspace.read_results() as connection:
            return merge_fingerprints(connection)
    except DatabaseError as error:
        echo(f"note: what is merged is not known, so `keep:` removes nothing: {error}", err=True)
        return {}


def _rows(workspace: Workspace, name: str, sae: str | None) -> dict[str, int]:
    from extraction_assets.database.writing.remove import count_results

    with workspace.read_results() as connection:
        return count_results(connection, name, sae)


def _labels_stay(workspace: Workspace, name: str, sae: str | None) -> Iterator[str]:
    from extraction_assets.database.queries.labels import list_labels

    with workspace.read_results() as connection:
        number = len(list_labels(connection, name, sae))
    if number:
        yield f"labels of {count(number, 'feature')} stay: a later result of the same name shows them again"


def _delete_rows_and_files(workspace: Workspace, rows: dict[str, int], name: str, sae: str | None) -> int:
    """Removes rows, then files, so that an error leaves both; on a full disk files first, to make room for the deletion
    of rows. Returns the bytes of the files."""
    from extraction_assets.database.errors import FullDiskError
    from extraction_assets.upkeep.delete import remove_stored_files

    try:
        _delete_rows(workspace, rows, name, sae)
    except FullDiskError:
        freed = remove_stored_files(workspace.store, name, sae)
        try:
            _delete_rows(workspace, rows, name, sae)
        except FullDiskError as error:
            raise click.ClickException(f"its files were removed, its rows were not: {error}; make room first") from None
        return freed
    return remove_stored_files(workspace.store, name, sae)


def _delete_rows(workspace: Workspace, rows: dict[str, int], name: str, sae: str | None) -> None:
    from extraction_assets.database.connect import write_transaction
    from extraction_assets.database.writing.remove import delete_results
    from extraction_assets.database.writing.text_index import index_texts_again

    if rows:
        with workspace.results.open() as engine:
            with write_transaction(engine) as connection:
                delete_results(connection, name, sae)
            index_texts_again(engine)


def _known(workspace: Workspace) -> list[str]:
    """Extractions that have files or rows."""
    from extraction_assets.stores.recognised_files import stored_extractions

    return sorted({*stored_extractions(workspace.store), *(name for name, _ in _merged(workspace))})


def _known_saes(workspace: Workspace, name: str) -> list[str]:
    """SAEs of an extraction that have files or rows."""
    from extraction_assets.stores.recognised_files import stored_saes

    stored = stored_saes(workspace.store, name)
    return sorted({*stored, *(sae for merged, sae in _merged(workspace) if merged == name)})


def _list_rows(rows: dict[str, int]) -> None:
    if rows:
        echo(styled("rows", bold=True))
    for table, number in rows.items():
        echo(f"  {table:40} {number:8}")


def _list_items(heading: str, items: "list[Item]") -> None:
    """Number and size of the files of each asset, under a heading."""
    from extraction_assets.host.disk import readable_size

    if items:
        echo(styled(heading, bold=True))
    for asset in dict.fromkeys(one.asset for one in items):
        asset_items = [one for one in items if one.asset == asset]
        number = count(len(asset_items), "folder" if asset_items[0].is_folder else "file")
        echo(f"  {asset:40} {number:>12} {readable_size(sum(one.bytes for one in asset_items)):>12}")
