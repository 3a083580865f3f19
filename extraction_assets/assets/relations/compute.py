"""Counts the relations of an SAE's features, step by step with progress."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from extraction_assets.assets.relations.source import Source
from extraction_assets.engine.memory import within_memory
from extraction_assets.engine.relations.flags import feature_flags
from extraction_assets.engine.relations.found import Relations, join_tokens
from extraction_assets.engine.relations.neighbours import FeatureNeighbours, choose_products, feature_neighbours
from extraction_assets.engine.relations.parts import Groups, TokenPart
from extraction_assets.engine.relations.products import side_within
from extraction_assets.engine.relations.top_tokens import PLACES, FeatureTokens, Place, feature_ranges, feature_tokens
from extraction_assets.engine.relations.totals import Totals, count_totals
from extraction_assets.execution.progress import progress
from extraction_assets.resources import GpuResource


class CorpusCounts(NamedTuple):
    """Of the whole corpus, as the merge has counted them."""

    firings: np.ndarray
    """int64 [F]: tokens on which each feature fires."""
    tokens: int
    """Counted positions."""


def compute_relations(
    source: Source,
    chunks: int,
    whole: CorpusCounts,
    gpu: GpuResource,
    logger: logging.Logger,
    finally_do: Callable[[Groups, Totals], object] = lambda *_: None,
) -> Relations:
    """Several passes over the source, whose firings stay in memory where they are few."""
    groups, totals = _first_pass(source, chunks, logger)
    tokens: dict[Place, FeatureTokens] = {place: _tokens(groups, totals, place, logger) for place in PLACES}
    neighbours = _neighbours(groups, totals, gpu, logger)
    flags = feature_flags(whole.firings, whole.tokens, totals, tokens["firing"], neighbours)
    finally_do(groups, totals)
    return Relations(totals, tokens, neighbours, flags)


def _first_pass(source: Source, chunks: int, logger: logging.Logger) -> tuple[Groups, Totals]:
    with progress("firings of features", chunks, "chunks", logger) as update:
        first = iter([True])

        def read() -> Iterator[TokenPart]:
            is_first = next(first, False)
            for part in source.read():
                yield part
                if is_first:
                    update(1)

        groups = Groups(read)
        return groups, count_totals(groups)


def _tokens(groups: Groups, totals: Totals, place: Place, logger: logging.Logger) -> FeatureTokens:
    what = "top tokens" if place == "firing" else "next tokens"
    with progress(what, len(totals.firings), "features", logger) as update:
        found = []
        for part, (start, stop) in zip(
            feature_tokens(groups, totals, place), feature_ranges(totals.firings), strict=True
        ):
            found.append(part)
            update(stop - start)
        return join_tokens(found)


def _neighbours(groups: Groups, totals: Totals, gpu: GpuResource, logger: logging.Logger) -> FeatureNeighbours:
    """On a GPU where that is sooner and one is free, in tiles that fit its memory; else on the CPU."""
    with progress("co-firing neighbours", len(totals.firings), "features", logger) as update:
        count = partial(feature_neighbours, groups, totals, _CPU, update=update, products=False)
        if choose_products(totals, torch.device("cuda")):
            with gpu.use_idle_device(logger) as device:
                side = side_within(gpu.memory_gb(device)) if device.type == "cuda" else 0
                if side:
                    multiply = partial(feature_neighbours, groups, totals, device, update=update, side=side)
                    return within_memory(multiply, count)
        return count()


_CPU = torch.device("cpu")
