"""The examples of a feature as readers show them: the strongest, then each half octave, then drawn from all."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from extraction_assets.engine.selection.intervals import OF_ALL, interval_edges, interval_of
from extraction_assets.exports.exported_rows import ExportedDraw, ExportedExample
from extraction_assets.exports.source import ExportedFeature

OneExample = ExportedExample | ExportedDraw


class Population(NamedTuple):
    """An interval of a feature's maxima."""

    low: float
    high: float
    """No larger than the feature's maximum."""
    share: float | None
    """Of the samples in which the feature fires, those whose maximum lies here; None if that was not counted."""


class ExampleGroup(NamedTuple):
    """Examples that are shown under one heading."""

    kind: Literal["top", "interval", "random"]
    population: Population | None
    """Of an interval alone."""
    examples: list[OneExample]


def example_groups(feature: ExportedFeature) -> list[ExampleGroup]:
    """The groups of a feature that hold examples; intervals come strongest first."""
    drawn: dict[int, list[OneExample]] = {}
    for draw in feature.draws:
        drawn.setdefault(draw.interval, []).append(draw)
    found = [ExampleGroup("top", None, list(feature.examples))] if feature.examples else []
    for interval in sorted(drawn.keys() - {OF_ALL}, reverse=True):
        found.append(ExampleGroup("interval", population_of(feature, interval), drawn[interval]))
    if OF_ALL in drawn:
        found.append(ExampleGroup("random", None, drawn[OF_ALL]))
    return found


def highest_of(feature: ExportedFeature) -> float | None:
    """The maximum of a feature in the digits of its examples, none of which is above it; readers compare the two."""
    maximum = feature.statistics.max_activation
    return None if maximum is None else float(str(np.float32(maximum)))


def population_of(feature: ExportedFeature, interval: int) -> Population:
    """What is known of an interval of a feature."""
    row = feature.statistics
    low, high = interval_edges(interval)
    counted = row.interval_samples
    total = sum(counted) if counted else 0
    if (highest := highest_of(feature)) is not None:
        high = min(high, highest)
    return Population(low, high, counted[interval] / total if total else None)


def population_of_example(feature: ExportedFeature, one: OneExample) -> Population:
    """What is known of the interval that an example's maximum lies in."""
    return population_of(feature, interval_of(one.max_activation))


def dense(one: OneExample, length: int) -> list[float]:
    """The activations of an example on every token of its sample, 0 where the feature does not fire."""
    values: list[float] = [0] * length
    for position, activation in zip(one.positions, one.activations, strict=True):
        values[position] = activation
    return values


def dense_text(one: OneExample, length: int) -> str:
    """``dense`` as the text of a JSON list."""
    texts = ["0"] * length
    for position, activation in zip(one.positions, one.activations, strict=True):
        texts[position] = repr(activation)
    return f"[{','.join(texts)}]"


def once_each(groups: Iterable[ExampleGroup]) -> dict[int, OneExample]:
    """Every sample of some groups once, by its index, in their order."""
    found: dict[int, OneExample] = {}
    for group in groups:
        for one in group.examples:
            found.setdefault(one.sample_index, one)
    return found
