"""Relations of features: how long top tokens and co-firing neighbours take, by F, on a CPU and on a GPU.

    python -m benchmarks.relations [--features 16384,131072] [--tokens 1048576] [--firings 64] [--device cuda]

Random firings: every token has ``--firings`` features, a few frequent ones and many rare ones. With ``--device cuda``
the neighbours are found both ways, and must be equal in every bit: exit status 1 if they are not.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from extraction_assets.engine.relations.neighbours import FeatureNeighbours, choose_products, feature_neighbours
from extraction_assets.engine.relations.parts import Groups, TokenPart
from extraction_assets.engine.relations.top_tokens import PLACES, Place, feature_tokens
from extraction_assets.engine.relations.totals import Totals, count_totals

Result = TypeVar("Result")

POSITIONS, VOCABULARY = 128, 50_000
_TOKENS_A_PART = 1 << 17
_SPARE = 24
"""Firings drawn beyond those wanted, of which some are equal."""


class Stage(NamedTuple):
    """One line of the report."""

    features: int
    name: str
    seconds: float
    note: str = ""


def random_parts(features: int, tokens: int, firings: int) -> Iterator[TokenPart]:
    """Parts of ``_TOKENS_A_PART`` tokens, the same in every pass; densities of features fall by a power law."""
    weights = np.cumsum(np.arange(1, features + 1) ** -0.6)
    for number, start in enumerate(range(0, tokens, _TOKENS_A_PART)):
        generator = np.random.default_rng(number)
        count = min(_TOKENS_A_PART, tokens - start)
        drawn = np.searchsorted(weights, generator.random((count, firings + _SPARE)) * weights[-1]).astype(np.int32)
        drawn.sort(axis=1)
        keep = np.concatenate([np.ones((count, 1), bool), drawn[:, 1:] != drawn[:, :-1]], axis=1)
        keep &= keep.cumsum(axis=1) <= firings
        ids = (generator.zipf(1.2, count) % VOCABULARY).astype(np.int32)
        yield TokenPart(
            np.concatenate([[0], np.cumsum(keep.sum(axis=1))]),
            drawn[keep],
            generator.random(int(keep.sum()), dtype=np.float32) + np.float32(0.1),
            ids,
            np.append(ids[1:], -1).astype(np.int32),
            np.ones(count, bool),
            np.arange(count) % POSITIONS == 0,
            np.arange(start // POSITIONS, start // POSITIONS + -(-count // POSITIONS)),
            features,
        )


def stages(features: int, options: argparse.Namespace) -> Iterator[Stage]:
    """The lines of one F."""
    groups = Groups(lambda: random_parts(features, options.tokens, options.firings))
    totals, seconds = _timed(lambda: count_totals(groups))
    yield Stage(features, "firings by feature, totals", seconds, f"{totals.firings.sum() / 1e6:.0f} million firings")
    for place in PLACES:
        _, seconds = _timed(partial(_drain, groups, totals, place))
        yield Stage(features, f"top tokens, {place}", seconds)
    yield from _neighbour_stages(features, groups, totals, torch.device(options.device))


def _neighbour_stages(features: int, groups: Groups, totals: Totals, device: torch.device) -> Iterator[Stage]:
    chosen, found = choose_products(totals, device), list[FeatureNeighbours]()
    ways = [(torch.device("cpu"), False), *([(device, True)] if device.type == "cuda" else [])]
    for where, products in ways:
        if products:
            _warm_up(where)
        result, seconds = _timed(partial(feature_neighbours, groups, totals, where, products=products))
        found.append(result)
        rate = f"{totals.pairs / 1e9:.1f} billion pairs, {totals.pairs / seconds / 1e9:.2f} billion/s"
        name = f"neighbours, {'products' if products else 'counted'} on {where.type}"
        yield Stage(features, name, seconds, rate + (", chosen" if chosen == products else ""))
    if any(not np.array_equal(*columns) for one in found for columns in zip(found[0], one, strict=True)):
        raise SystemExit("the neighbours of both ways differ")


def _warm_up(device: torch.device) -> None:
    """The first product on a GPU waits for libraries."""
    groups = Groups(partial(random_parts, 512, 1 << 15, 16))
    feature_neighbours(groups, count_totals(groups), device, products=True)


def _drain(groups: Groups, totals: Totals, place: Place) -> None:
    for _ in feature_tokens(groups, totals, place):
        pass


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    result = work()  # results are NumPy arrays on the CPU: the GPU has finished
    return result, time.perf_counter() - started


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if options.device == "cuda" else None
    sizes = {"features": options.features, "tokens": options.tokens, "firings": options.firings}
    return {**sizes, "gpu": name, "cpu": platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__}


def main() -> int:
    """Prints the conditions and a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", default="16384,131072", help="numbers of features, separated by commas")
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--firings", type=int, default=64, help="features that fire on a token")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines: list[Stage] = []
    print(_conditions(options))
    for features in map(int, options.features.split(",")):
        for stage in stages(features, options):
            lines.append(stage)
            print(f"F={stage.features:<8} {stage.name:<36} {stage.seconds:8.1f} s   {stage.note}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.1f} GiB")
    if options.json:
        found = {"conditions": _conditions(options), "stages": [stage._asdict() for stage in lines], "peak_gb": peak}
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
