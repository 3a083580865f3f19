"""``saes``: the published SAEs that have a name."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from extraction_assets.cli.app import command_line, count, few, main
from extraction_assets.cli.terminal import echo, styled

if TYPE_CHECKING:
    from extraction_assets.engine.saes.published import PublishedSae, Release
    from extraction_assets.engine.saes.published.search import Found

HUB = "https://huggingface.co/"


@main.command()
@click.argument("words", nargs=-1, metavar="[SEARCH]...")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="SAEs to list.")
@click.option("--all", "show_all", is_flag=True, help="List all SAEs that are found.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of releases with their SAEs, for programs.")
@click.pass_obj
def saes(module: str, words: tuple[str, ...], limit: int, show_all: bool, as_json: bool) -> None:
    """List published SAEs by name: hooks, widths and L0.

    The names are SAELens's: `init --sae RELEASE/ID` takes them, and `release` and `sae_id` of an SAE in a defs.yaml.

    SEARCH is words that all have to match the release, the model (gemma-2-2b, google/gemma-2-2b), the repository on the
    hub or the id. Shown are releases; of one release, by its name or because it is the only one found, its SAEs. Hooks
    and widths are what names say of them, - where they say nothing. Asks no hub.
    """
    from extraction_assets.engine.saes.published import registry
    from extraction_assets.engine.saes.published.search import near_words, search

    found = search(words)
    if not found:
        near = near_words(words)
        raise click.ClickException(
            f"no SAE that SAELens {registry().sae_lens} knows matches {' '.join(words)}"
            + (f"; near names: {few(near, 10)}" if near else "")
        )
    if as_json:
        echo(*json.dumps([_release_as_json(one) for one in found], indent=1).splitlines())
    elif len(found) == 1:
        _echo_saes(found[0], len(found[0].saes) if show_all else limit, command_line(module))
    else:
        _echo_releases(found, show_all, command_line(module))


def _echo_releases(found: "Sequence[Found]", show_all: bool, command: str) -> None:
    heading = ["release", "model", "SAEs", "hooks", "widths", "L0", "format"]
    rows = [_release_row(one) for one in found]
    _echo_table(heading, rows, right={2, 5})
    _echo_reasons(one.release for one in found)
    total = sum(len(one.saes) for one in found)
    echo("", f"{count(len(found), 'release')}, {total:,} SAEs; `{command} saes RELEASE` lists those of one")
    if show_all:
        for one in found:
            echo("")
            _echo_saes(one, len(one.saes))


def _release_row(found: "Found") -> list[str]:
    from extraction_assets.engine.saes.published.described import hook_kind, mean_l0, short_width, width

    release, numbers = found.release, [l0 for sae in found.saes if (l0 := mean_l0(sae)) is not None]
    kinds = dict.fromkeys(kind for sae in found.saes if (kind := hook_kind(sae)) is not None)
    widths = sorted({features for sae in found.saes if (features := width(sae)) is not None})
    several = (
        f"{len(found.saes)} of {len(release.saes)}" if len(found.saes) < len(release.saes) else f"{len(found.saes)}"
    )
    return [
        release.name,
        release.model,
        several,
        ", ".join(kinds) or "-",
        _some([short_width(features) for features in widths]),
        _range(numbers),
        _format(release),
    ]


def _some(widths: Sequence[str]) -> str:
    """All of a few widths, the ends of many."""
    if not widths:
        return "-"
    return ", ".join(widths) if len(widths) <= 4 else f"{widths[0]} … {widths[-1]}"


def _range(numbers: Sequence[float]) -> str:
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return f"{low:.4g}" if low == high else f"{low:.4g}-{high:.4g}"


def _format(release: "Release") -> str:
    from extraction_assets.engine.saes.formats import format_of_loader

    return format_of_loader(release.loader) or "cannot be read"


def _echo_reasons(releases: "Iterable[Release]") -> None:
    """Why the SAEs of some releases cannot be read."""
    from extraction_assets.engine.saes.formats import unreadable

    reasons: dict[str, list[str]] = {}
    for release in releases:
        if why := unreadable(release.loader):
            reasons.setdefault(why, []).append(release.name)
    for why, names in reasons.items():
        echo(styled("cannot be read", fg="yellow") + f"  {few(names)}: {why}")


def _echo_saes(found: "Found", limit: int, command: str | None = None) -> None:
    """The SAEs of a release, at most ``limit``; with ``command``, what to type next."""
    from extraction_assets.engine.saes.formats import format_of_loader
    from extraction_assets.engine.saes.published.described import hook, mean_l0, width

    release, several = found.release, len(found.saes)
    where = f"{_format(release)}, {HUB}{release.repository}"
    number = (
        f"{several:,} of {count(len(release.saes), 'SAE')}" if several < len(release.saes) else count(several, "SAE")
    )
    echo(styled(release.name, bold=True) + f"  {number} of {release.model}, {where}")
    rows = []
    for sae in found.saes[:limit]:
        features, l0 = width(sae), mean_l0(sae)
        numbers = ["-" if features is None else f"{features:,}", "-" if l0 is None else f"{l0:.4g}"]
        rows.append([sae.sae_id, hook(sae) or "-", *numbers, sae.neuronpedia or "-"])
    _echo_table(["id", "hook", "width", "L0", "Neuronpedia"], rows, right={2, 3})
    if several > limit:
        echo(f"… and {several - limit:,} more: narrow the search, or --all")
    _echo_reasons([release])
    if command is not None and format_of_loader(release.loader):
        echo("", f"next  {command} init NAME --model FOLDER --sae {release.name}/{_usual(found.saes)} --corpus FOLDER")


def _usual(saes: "Sequence[PublishedSae]") -> str:
    """The id to begin with: of about 16k features, of medium L0, in a middle layer, as far as names say it."""
    from extraction_assets.engine.saes.published.described import layer, width

    layers = [number for sae in saes if (number := layer(sae)) is not None]
    middle = sorted(layers)[len(layers) // 2] if layers else 0

    def unusual(sae: "PublishedSae") -> tuple[float, bool, int]:
        features = width(sae)
        size = 0.0 if features is None else abs(math.log2(features / 16_384))
        named = any(word in sae.sae_id for word in ("medium", "canonical"))
        return size, not named, abs((layer(sae) or 0) - middle)

    return min(saes, key=unusual).sae_id


def _echo_table(heading: Sequence[str], rows: Sequence[Sequence[str]], right: set[int]) -> None:
    """Columns as wide as their longest cell; those of ``right`` are numbers."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        cells = [
            cell.rjust(size) if number in right else cell.ljust(size)
            for number, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        echo("  ".join(cells).rstrip())


def _release_as_json(found: "Found") -> dict[str, Any]:
    from extraction_assets.engine.saes.formats import format_of_loader, unreadable

    release = found.release
    return {
        "release": release.name,
        "model": release.model,
        "repository": release.repository,
        "format": format_of_loader(release.loader),
        "cannot_be_read": unreadable(release.loader),
        "saes": [_sae_as_json(sae) for sae in found.saes],
    }


def _sae_as_json(sae: "PublishedSae") -> dict[str, Any]:
    """What is known of an SAE; null where nothing is."""
    from extraction_assets.engine.saes.published.described import hook, hook_kind, layer, mean_l0, width

    return {
        "sae_id": sae.sae_id,
        "path": sae.path,
        "hook": hook(sae),
        "kind": hook_kind(sae),
        "layer": layer(sae),
        "width": width(sae),
        "l0": mean_l0(sae),
        "variance_explained": sae.variance_explained,
        "neuronpedia": sae.neuronpedia,
    }
