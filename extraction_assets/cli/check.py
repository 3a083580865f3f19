"""``check``: reports the errors that a run would find before its first chunk."""

import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extraction_assets.cli.app import command_line, main
from extraction_assets.cli.run import known_device
from extraction_assets.cli.terminal import echo, styled
from extraction_assets.cli.workspace import Workspace

if TYPE_CHECKING:
    from extraction_assets.early_checks.extraction import Examination
    from extraction_assets.engine.preflight.sanity import SaeSanity
    from extraction_assets.settings import ExtractionSettings
    from extraction_assets.stores.chunk_store import ChunkStore


@main.command()
@click.argument("name")
@click.option("--device", callback=known_device, help="auto, cpu, cuda:0, …; as in the GPU resource.")
@click.pass_context
def check(ctx: click.Context, name: str, device: str | None) -> None:
    """Check extraction NAME without running it; exit code 1 where a run would fail.

    Do model, SAEs, hooks and tokenizer belong together, is the context long enough? Does the corpus hold enough
    samples, and how many documents do they come from? What does each SAE explain of one small batch, how sparse is it,
    does it look at more than first tokens? Does what is to be written fit on the disk?
    Stores nothing.
    """
    from extraction_assets.early_checks.extraction import Machine, examine_extraction
    from extraction_assets.resources.device import choose_device

    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    workspace = Workspace(ctx.obj)
    workspace.warn_of_not_loaded(name)
    settings, gpu = workspace.find(name), workspace.gpu
    logger = logging.getLogger(__name__)
    with choose_device(device or gpu.device, logger) as chosen:
        machine = Machine(chosen, gpu.matmul_precision, workspace.store, workspace.results.folder())
        found = examine_extraction(settings, machine, logger)
    _echo(settings, machine.store, found)
    for finding in found.findings:
        colour = "red" if finding.severity == "error" else "yellow"
        echo(styled(finding.severity, fg=colour, bold=True) + f"  {' '.join(finding.message.split())}")
    if not found.fails:
        echo(styled("ok", fg="green") + f"  {command_line(ctx.obj)} run {name}")
    ctx.exit(found.fails)


def _echo(settings: "ExtractionSettings", store: "ChunkStore", found: "Examination") -> None:
    from extraction_assets.host.disk import free_bytes, readable_size

    names = [*found.widths, *found.saes, *(one.name for one in found.estimates)]
    longest = max([36, *map(len, names)])  # the model's path may be longer, and has a line of its own

    def line(what: str, name: str, text: str) -> None:
        echo(f"{what:6} {name:{longest}} {text}".rstrip())

    line("model", settings.language_model.path, found.model)
    for hook, width in found.widths.items():
        line("hook", hook, f"width {width:,}")
    for name, weights in found.saes.items():
        shape = f"{weights.architecture}, d_in {weights.d_in:,}, {weights.latent_dim:,} features"
        line("SAE", name, f"{shape}, at {found.hooks[name]}")
    if found.corpus is not None:
        line("corpus", Path(settings.corpus.source).name, found.corpus.sentence)
    if found.roles:
        tokens = ", ".join(f"{role} {count:,}" for role, count in found.roles.items())
        line("roles", "", f"{tokens} tokens {found.samples}")
    if found.sanity:
        _echo_sanity(found)
    for estimate in found.estimates:
        line("disk", estimate.name, f"{readable_size(estimate.size):>10} to come")
    if found.estimates:
        total = readable_size(sum(one.size for one in found.estimates))
        free = "" if store.files.disk is None else f"{readable_size(free_bytes(store.files.disk))} free in "
        line("", "in all", f"{total:>10}, {free}{store.place}")
    elif found.sanity:
        line("disk", "all chunks", "are there")


def _echo_sanity(found: "Examination") -> None:
    longest = max(20, *map(len, found.sanity))
    echo("", f"{'SAE':{longest}} {'explained':>10} {'mean L0':>9} {'silent':>8} {'BOS share':>10}   tokens")
    for name, sanity in found.sanity.items():
        echo(_numbers(name.ljust(longest), sanity, found.samples))
    echo("")


def _numbers(name: str, found: "SaeSanity", samples: str) -> str:
    explained = _explained(found.variance_explained)
    return (
        f"{name} {explained:>10} {found.mean_l0:9.1f} {found.dead_fraction:8.1%} {found.bos_share:10.1%}   "
        f"{found.tokens:,} {samples}"
    )


def _explained(variance: float | None) -> str:
    if variance is None:
        return "n/a"  # it encodes only
    return "none" if math.isnan(variance) else f"{variance:.3f}"
