"""``list`` and ``run``: what is declared, and running it."""

import os
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from extraction_assets.catalog import FEATURE_REPORT, TOP_K_TABLE
from extraction_assets.cli.app import command_line, count, few, main, numbered
from extraction_assets.cli.declared_extractions import import_definitions
from extraction_assets.cli.new_processes import begin_preloading, new_processes
from extraction_assets.cli.show import show_features
from extraction_assets.cli.terminal import echo, styled
from extraction_assets.cli.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from extraction_assets.cli.runner import Runner
    from extraction_assets.settings import ExtractionSettings

NOTHING_MERGED = 3
"""Exit code where chunks are missing that another run works on, so that nothing was merged."""


def _batch_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    from extraction_assets.engine.chunk_pass.batch_size import parse_batch_size

    try:
        return None if value is None else parse_batch_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _number_of_gpus(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    if value is None or value == "all":
        return value
    if not re.fullmatch(r"0*[1-9]\d*", value):
        raise click.BadParameter(f"must be a whole number of at least 1, or all, got {value!r}")
    return int(value)


def known_device(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refused here and not by the run of the chunks, which comes after that of the corpus."""
    from extraction_assets.resources.checked_fields import parse_device
    from extraction_assets.resources.device import check_device

    try:
        if value is not None:
            check_device(parse_device(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return value


@main.command("list")
@click.pass_context
def list_command(ctx: click.Context) -> None:
    """List the declared extractions, how many chunks of each SAE have a table, and when they were merged.

    Files and rows are counted, not compared with the settings: `status NAME` says which of them are current. An
    extraction whose YAML file does not load is named on standard error; the exit code is 1 then.
    """
    workspace = open_workspace(ctx.obj)
    store, merged = workspace.store, workspace.merges()
    for settings in workspace.extractions.values():
        keys = settings.chunk_keys
        echo(styled(settings.name, bold=True) + f"  {settings.language_model.path}")
        echo(
            f"  {settings.evaluation_samples} samples of {settings.corpus.max_length} tokens in "
            f"{count(len(keys), 'chunk')}, the {settings.top_k_examples} strongest examples of every feature"
        )
        rows = []
        for name, sae in settings.saes.items():
            stored = len(store.stored_keys(settings.name, TOP_K_TABLE, name) & set(keys))
            merge = merged.get((settings.name, name))
            at = f"merged {merge.finished_at:%Y-%m-%d %H:%M} UTC" if merge else "not merged"
            hook = sae.hook or (merge.hook if merge else "as recorded")
            rows.append((name, hook, f"{stored} of {len(keys)} chunks, {at}", str(sae.checkpoint)))
        widths = [max(least, *(len(row[i]) for row in rows)) for i, least in enumerate((12, 20, 45))]
        for *cells, checkpoint in rows:
            columns = " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            echo(f"  {columns} {checkpoint}")
    ctx.exit(1 if workspace.not_loaded else 0)


@main.command()
@click.argument("name")
@click.option(
    "--chunks",
    metavar="A:B",
    help="Only chunks A to B-1, counted from 0, as in a Python slice; or one chunk by its name, such as 000000005000. "
    "Merges only once no other chunk is missing.",
)
@click.option("--missing", is_flag=True, help="Only chunks without a durable top-k table of the current settings.")
@click.option(
    "--device", callback=known_device, help="auto, cpu, cuda:0, …; as in the GPU resource, like the next ones."
)
@click.option(
    "--gpus",
    metavar="N|all",
    callback=_number_of_gpus,
    help="Share the chunks among N processes, each on a GPU of its own; all: as many as this host has GPUs.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of one forward pass.")
@click.option("--vectorization-batch-size", metavar="auto|N", callback=_batch_size, help="Samples reduced at once.")
@click.option("--vectorized/--legacy", default=None, help="The fast engine, or the sequential loop it replaces.")
@click.pass_context
def run(
    ctx: click.Context, name: str, chunks: str | None, missing: bool, gpus: int | str | None, **options: Any
) -> None:
    """Run extraction NAME: its corpus, then its chunks, then the merge of each SAE, and what its weights alone say.

    With --missing only what is not current: a merge with current rows is skipped.
    Every part is a run of its own on the persistent Dagster instance, so that the UI shows it afterwards. Exit code 3:
    nothing was merged, because another run of NAME still works on chunks that are missing; 1: it failed.
    """
    from extraction_assets.cli.runner import Runner
    from extraction_assets.stores.in_use import running

    workspace = open_workspace(ctx.obj, name)
    settings = workspace.find(name)
    chosen = chosen_chunks(settings, chunks)
    _check_resources(workspace, options["device"])
    processes = number_of_processes(gpus, options["device"] or workspace.gpu.device)
    if processes > 1:
        begin_preloading(new_processes())
    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    debug = ctx.parent.params["debug"] if ctx.parent else False
    with running(workspace.store.root, name), Runner(workspace.definitions, settings, options, verbose=debug) as runner:
        ctx.exit(_run_all(runner, workspace, settings, chosen, missing, processes))


def _run_all(
    runner: "Runner",
    workspace: Workspace,
    settings: "ExtractionSettings",
    chosen: list[str],
    missing: bool,
    processes: int,
) -> int:
    """Corpus, chunks and merges; the command's exit code."""
    started = time.perf_counter()
    _say_what_changed(workspace, settings, missing)
    for dead in runner.recover():
        echo(f"run {dead.run.run_id}: {dead.why}; it was marked as ended", err=True)
    echo(f"corpus of {settings.name}", err=True)
    runner.materialize_corpus()
    keys, recorded = _to_compute(runner, chosen) if missing else (chosen, 0)
    _make_chunks(runner, workspace, keys, missing, processes)
    left = runner.pending().keys
    if left:
        others = runner.others()
        echo(_what_is_left(settings, left, others, command_line(workspace.module)))
        return NOTHING_MERGED if others else 0
    merged = _merge_all(runner, settings, missing)
    failed = _directions(runner, settings, missing)
    if settings.exports:
        echo(f"exports: {', '.join(settings.exports)}", err=True)
        runner.export(list(settings.saes))
    seconds = time.perf_counter() - started
    _say_what_is_there(workspace, settings)
    computed = count(len(keys) - recorded, "chunk") + (f" computed, {recorded} recorded" if recorded else "")
    echo("", f"{computed}, {count(merged, 'merge')}: {seconds:.1f} s")
    if failed is not None:
        echo(failed, err=True)
    return 0 if failed is None else 1


def _make_chunks(runner: "Runner", workspace: Workspace, keys: list[str], missing: bool, processes: int) -> None:
    """The chunks, here or in several processes at once. Raises RunFailed."""
    if processes > 1 and len(keys) > 1:
        from extraction_assets.cli.gpu_processes import make_on_several_gpus

        processes = min(processes, len(keys))
        echo(f"{count(len(keys), 'chunk')}, {keys[0]} to {keys[-1]}, in {processes} processes", err=True)
        load = partial(import_definitions, workspace.module)
        make_on_several_gpus(runner, load, keys, processes, only_missing=missing)
        return
    for part in runner.ranges(keys):
        echo(f"chunks {part[0]} to {part[-1]}", err=True)
        runner.materialize_chunks(part, only_missing=missing)


def _merge_all(runner: "Runner", settings: "ExtractionSettings", missing: bool) -> int:
    """Merges the chunks of each SAE, with ``missing`` those whose merge is not current, and makes what follows from a
    merge that is; how many were merged. Raises RunFailed."""
    current = [sae for sae in settings.saes if missing and runner.merge_is_current(sae)]
    for sae in settings.saes:
        echo(f"merge of {sae}" + (" is current" if sae in current else ""), err=True)
        if sae not in current:
            runner.merge(sae)
        elif missing_too := runner.missing_after_merge(sae):
            echo(*(wrong or f"{asset} of {sae}" for asset, wrong in missing_too.items()), err=True)
            runner.materialize_after_chunks(sae, list(missing_too))
    return len(settings.saes) - len(current)


def _directions(runner: "Runner", settings: "ExtractionSettings", missing: bool) -> str | None:
    """The directions of the SAEs, last, for the merges need none of them; one sentence if that failed."""
    from extraction_assets.cli.runner import RunFailed

    current = [sae for sae in settings.saes if missing and runner.directions_are_current(sae)]
    others = [sae for sae in settings.saes if sae not in current]
    for sae in settings.saes:
        echo(f"directions of {sae}" + (" are current" if sae in current else ""), err=True)
    try:
        if others:
            runner.of_weights(others)
    except RunFailed as error:
        return f"what the features write is not known, all else is there: {error}"
    return None


def _to_compute(runner: "Runner", chosen: list[str]) -> tuple[list[str], int]:
    """The chunks among ``chosen`` that are missing, damaged or not recorded, and how many of them only have to be
    recorded. Damaged files are set aside and named."""
    for sentence in runner.set_damaged_aside():
        echo(sentence, err=True)
    pending = runner.pending()
    wanted = {*pending.keys, *pending.set_aside}
    keys = [key for key in chosen if key in wanted]
    return keys, len(set(pending.unrecorded) & set(keys))


def _check_resources(workspace: Workspace, chosen: str | None) -> None:
    """Refuses, before the corpus runs, an invalid URL of the results and a GPU resource with a missing device."""
    from extraction_assets.resources.device import check_device

    workspace.results.parsed_url()
    if chosen is None:
        check_device(workspace.gpu.device)


def number_of_processes(gpus: int | str | None, device: str) -> int:
    """The processes that share the chunks, each on a device of its own. Raises ClickException."""
    from extraction_assets.dagster_instance.home import count_gpus

    if gpus is None or gpus == 1:
        return 1
    if device.startswith("cuda"):
        raise click.ClickException(f"--gpus {gpus} chooses the GPUs itself, but the device is {device}: use auto")
    if device == "cpu":
        if gpus == "all":
            raise click.ClickException("--gpus all counts the GPUs of this host, but the device is cpu: use a number")
        return int(gpus)
    there = count_gpus()
    if there == 0:
        raise click.ClickException(f"--gpus {gpus}: this host has no GPU; with --device cpu it takes the CPU")
    if gpus != "all" and int(gpus) > there:
        raise click.ClickException(f"--gpus {gpus}: this host has {count(there, 'GPU')}")
    return there if gpus == "all" else int(gpus)


def _what_is_left(settings: "ExtractionSettings", left: list[str], others: list[str], command: str) -> str:
    """Why nothing was merged, and what to do."""
    message = (
        f"nothing merged yet, {len(left)} of {count(len(settings.chunk_keys), 'chunk')} missing or not recorded: "
        f"{numbered(left, settings.chunk_keys)}; `{command} run {settings.name} --missing` does the rest"
    )
    return message + (f", but {others[0]} works on {settings.name} now: wait for it" if others else "")


def _say_what_changed(workspace: Workspace, settings: "ExtractionSettings", missing: bool) -> None:
    from extraction_assets.planning.changes import changes_on_disk

    changes = changes_on_disk(settings, workspace.store)
    for change in changes:
        echo(change, err=True)
    if changes and not missing:
        echo("every requested chunk is computed; --missing computes only those that are not current", err=True)


def _say_what_is_there(workspace: Workspace, settings: "ExtractionSettings") -> None:
    """Prints five features and the places of the results at the end of a complete run."""
    first, command = next(iter(settings.saes)), command_line(workspace.module)
    marks = "[strongest token] and ‹other firing tokens›"  # noqa: RUF001
    echo("", f"Five features of {settings.name}/{first}, {marks} in context:", "")
    with workspace.results.read() as engine:
        show_features(engine, settings.name, None, first, limit=3, width=8)
    echo(f"database   {workspace.results.shown_url()}")
    echo(f"files      {workspace.store.place}")
    reports = [workspace.store.asset_file(settings.name, FEATURE_REPORT, sae) for sae in settings.saes]
    for path in filter(workspace.store.files.is_file, reports):
        echo(f"report     {workspace.store.files.address(path)}")
    echo(f"more       {command} show {settings.name} FEATURE --sae {first}")
    echo(f"UI         {command} ui")


def chosen_chunks(settings: "ExtractionSettings", chunks: str | None) -> list[str]:
    """The keys of a slice of all chunks, ``2:5``, or of one chunk by its name. A bound of the slice may be a name too,
    ``000000001000:``. Raises ClickException."""
    every = settings.chunk_keys
    if chunks is None:
        return every
    if chunks in every:
        return [chunks]
    match = re.fullmatch(r"(\d*):(\d*)", chunks)
    if not match:
        raise click.ClickException(f"--chunks takes A:B with whole numbers, such as 0:4, got {chunks!r}")
    start, stop = (_chunk_number(every, text) if text else None for text in match.groups())
    inside = every[slice(start, stop)]
    if not inside:
        raise click.ClickException(f"--chunks {chunks} holds none of the {count(len(every), 'chunk')}")
    return inside


def _chunk_number(every: list[str], text: str) -> int:
    """The number of a chunk that is given by its number or its name."""
    if text in every:
        return every.index(text)
    if len(text) == len(every[0]):
        raise click.ClickException(f"--chunks: no chunk is called {text}; the first are {few(every)}")
    return int(text)
