"""Counts the relations of an SAE's features, step by step with progress."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch

from extraction_assets.assets.relations.source import Source
from extraction_assets.engine.memory import release_memory, within_memory
from extraction_assets.engine.relations.counting import cells_within
from extraction_assets.engine.relations.flags import feature_flags
from extraction_assets.engine.relations.found import Relations, join_tokens
from extraction_assets.engine.relations.neighbours import FeatureNeighbours, Room, Way, choose_way, feature_neighbours
from extraction_assets.engine.relations.parts import Groups, TokenPart
from extraction_assets.engine.relations.products import side_within
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
from extraction_assets.execution.progress import progress


class Devices(Protocol):
    """What chooses the device to count on, such as the GPU resource."""

    def use_idle_device(self, logger: logging.Logger) -> AbstractContextManager[torch.device]:
        """A device that is free now."""

    def memory_gb(self, device: torch.device) -> float:
        """GiB of a device's memory that may be planned with now."""


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
    gpu: Devices,
    logger: logging.Logger,
    finally_do: Callable[[Groups, Totals], object] = lambda *_: None,
) -> Relations:
    """Several passes over the source, whose firings stay in memory where they are few; on a GPU where one is free."""
    groups, totals = _first_pass(source, chunks, logger)
    with gpu.use_idle_device(logger) as device:
        logger.info("top tokens and neighbours are counted on %s", device)
        counted = _Counted(groups, totals, device, gpu.memory_gb(device), gpu.memory_gb(_CPU), logger)
        tokens = counted.tokens()
        release_memory()
        neighbours = counted.neighbours()
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


class _Counted(NamedTuple):
    """Counts on a device; on the CPU where its memory runs out."""

    groups: Groups
    totals: Totals
    device: torch.device
    device_gb: float
    host_gb: float
    logger: logging.Logger

    def tokens(self) -> dict[Place, FeatureTokens]:
        """Top tokens at both places."""
        return within_memory(
            partial(self._tokens, self.device, limits_within(self.device_gb)),
            partial(self._tokens, _CPU, limits_within(self.host_gb)),
        )

    def neighbours(self) -> FeatureNeighbours:
        """In the way that is soonest, among those that fit the memory of the device."""
        num_features = len(self.totals.firings)
        room = Room(side_within(self.device_gb), rows_within(num_features, self.device_gb), cells_within(self.host_gb))
        way = choose_way(self.totals, self.device)
        if (way == "products" and not room.side) or (way == "scattered" and not room.rows):
            way = "counted"
        return within_memory(
            partial(self._neighbours, self.device, way, room), partial(self._neighbours, _CPU, "counted", room)
        )

    def _tokens(self, device: torch.device, limits: Limits) -> dict[Place, FeatureTokens]:
        with progress("top tokens", len(self.totals.firings), "features", self.logger) as update:
            found = list(feature_tokens(self.groups, self.totals, device, limits=limits, update=update))
        return {place: join_tokens(one[place] for one in found) for place in PLACES}

    def _neighbours(self, device: torch.device, way: Way, room: Room) -> FeatureNeighbours:
        with progress("co-firing neighbours", len(self.totals.firings), "features", self.logger) as update:
            return feature_neighbours(self.groups, self.totals, device, update=update, way=way, room=room)


_CPU = torch.device("cpu")
