"""Relations of features: how long top tokens and co-firing neighbours take, by F, on a CPU and on a GPU.

    python -m benchmarks.relations [--features 16384,131072] [--tokens 1048576] [--firings 64] [--device cuda]

Random firings: every token has ``--firings`` features, a few frequent ones and many rare ones, and no feature has
tokens of its own, so that different pairs of a feature and a token are as many as they can be. With ``--device cuda``
all is counted on the CPU too, neighbours in every way, and must be equal in every bit: exit status 1 if it is not.
``--held 1`` measures what corpora take that are too large to stay in memory.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
import torch

from extraction_assets.engine.chunk_pass.batching import available_memory_gb
from extraction_assets.engine.relations.found import join_tokens
from extraction_assets.engine.relations.neighbours import FeatureNeighbours, Room, Way, choose_way, feature_neighbours
from extraction_assets.engine.relations.parts import HELD_SIZE, Groups, TokenPart
from extraction_assets.engine.relations.scattering import rows_within
from extraction_assets.engine.relations.top_tokens import (
    PLACES,
    FeatureTokens,
    Limits,
    Place,
    feature_tokens,
    limits_within,
)
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


def random_parts(features: int, tokens: int, firings: int) -> list[TokenPart]:
    """Parts of ``_TOKENS_A_PART`` tokens, the same each time; densities of features fall by a power law."""
    weights = np.cumsum(np.arange(1, features + 1) ** -0.6)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = range(0, tokens, _TOKENS_A_PART)
        return list(
            pool.map(lambda start: _random_part(weights, start, min(_TOKENS_A_PART, tokens - start), firings), starts)
        )


def _random_part(weights: np.ndarray, start: int, count: int, firings: int) -> TokenPart:
    generator = np.random.default_rng(start)
    drawn = np.searchsorted(weights, generator.random((count, firings + _SPARE)) * weights[-1]).astype(np.int32)
    drawn.sort(axis=1)
    keep = np.concatenate([np.ones((count, 1), bool), drawn[:, 1:] != drawn[:, :-1]], axis=1)
    keep &= keep.cumsum(axis=1) <= firings
    ids = (generator.zipf(1.2, count) % VOCABULARY).astype(np.int32)
    return TokenPart(
        np.concatenate([[0], np.cumsum(keep.sum(axis=1))]),
        drawn[keep],
        generator.random(int(keep.sum()), dtype=np.float32) + np.float32(0.1),
        ids,
        np.append(ids[1:], -1).astype(np.int32),
        np.ones(count, bool),
        np.arange(count) % POSITIONS == 0,
        np.arange(start // POSITIONS, start // POSITIONS + -(-count // POSITIONS)),
        len(weights),
    )


def stages(features: int, options: argparse.Namespace) -> Iterator[Stage]:
    """The lines of one F."""
    device, cpu = torch.device(options.device), torch.device("cpu")
    made = random_parts(features, options.tokens, options.firings)  # making them takes longer than counting
    groups = Groups(lambda: iter(made), held=options.held)
    totals, seconds = _timed(lambda: count_totals(groups))
    yield Stage(features, "totals", seconds, f"{totals.firings.sum() / 1e6:.0f} million firings")
    tokens = dict[str, dict[Place, FeatureTokens]]()
    for where in dict.fromkeys([device] if options.device_alone else [cpu, device]):
        limits = limits_within(available_memory_gb(where))
        work = partial(_top_tokens, groups, totals, where, limits)
        if where.type == "cuda":
            work()  # the first sort on a GPU waits for libraries
        tokens[where.type], seconds = _timed(work)
        yield Stage(features, f"top tokens, firing and next, on {where.type}", seconds, _peak(where))
    if any(not _equal(tokens[device.type][place], one[place]) for one in tokens.values() for place in PLACES):
        raise SystemExit("the top tokens of both devices differ")
    if not options.no_neighbours:
        cpu_too = not options.device_alone or device.type == "cpu"
        yield from _neighbour_stages(features, groups, totals, device, cpu_too=cpu_too)


def _top_tokens(groups: Groups, totals: Totals, device: torch.device, limits: Limits) -> dict[Place, FeatureTokens]:
    found = list(feature_tokens(groups, totals, device, limits=limits))
    return {place: join_tokens(one[place] for one in found) for place in PLACES}


def _neighbour_stages(
    features: int, groups: Groups, totals: Totals, device: torch.device, *, cpu_too: bool
) -> Iterator[Stage]:
    chosen, found = choose_way(totals, device), list[FeatureNeighbours]()
    for way in get_args(Way):
        if not cpu_too if way == "counted" else device.type == "cpu":
            continue
        where = torch.device("cpu") if way == "counted" else device
        room = Room(rows=max(1, rows_within(features, available_memory_gb(where))))
        if way != "counted":
            _warm_up(where, way)
        result, seconds = _timed(partial(feature_neighbours, groups, totals, where, way=way, room=room))
        found.append(result)
        rate = f"{totals.pairs / 1e9:.1f} billion pairs, {totals.pairs / seconds / 1e9:.2f} billion/s"
        yield Stage(
            features, f"neighbours, {way}", seconds, rate + _peak(where) + (", chosen" if chosen == way else "")
        )
    if any(not _equal(found[0], one) for one in found):
        raise SystemExit("the neighbours of different ways differ")


def _warm_up(device: torch.device, way: Way) -> None:
    """The first product on a GPU waits for libraries."""
    groups = Groups(lambda: iter(random_parts(512, 1 << 15, 16)))
    feature_neighbours(groups, count_totals(groups), device, way=way)


def _equal(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(*columns) for columns in zip(one, other, strict=True))


def _peak(device: torch.device) -> str:
    """Peak memory of the GPU since the last call."""
    if device.type != "cuda":
        return ""
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.empty_cache()
    return f", {peak:.1f} GiB of the GPU"


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
    parser.add_argument("--held", type=int, default=HELD_SIZE, help="firings and positions that stay in memory")
    parser.add_argument("--no-neighbours", action="store_true", help="top tokens alone")
    parser.add_argument("--device-alone", action="store_true", help="nothing is counted on the CPU beside a GPU")
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
