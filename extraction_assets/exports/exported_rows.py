"""What the database holds of a feature, as formats get it: its examples, its draws, its top tokens."""

from collections.abc import Sequence
from typing import NamedTuple


class Batch(NamedTuple):
    """Features that stand in one file."""

    number: int
    neuron_indices: Sequence[int]


class ExportedExample(NamedTuple):
    """One example of a feature; its numbers are those of the JSON in the database, the fewest digits that are no other
    float32."""

    sample_index: int
    max_activation: float
    max_token: str
    positions: list[int]
    """Of every firing, strongest first."""
    activations: list[float]


class ExportedDraw(NamedTuple):
    """One example that was drawn."""

    interval: int
    """Of the sample's maximum, -1 if it was drawn from all samples (``engine.selection.intervals``)."""
    sample_index: int
    max_activation: float
    max_token: str
    positions: list[int]
    activations: list[float]


class ListTexts(NamedTuple):
    """The lists of some features, as JSON."""

    neuron_indices: list[int]
    texts: list[str]


class TopToken(NamedTuple):
    """A token on which a feature fires often, or that comes after one."""

    token_id: int
    token: str
    firings: int
    """On it, or before it."""
    mean_activation: float
    share: float
