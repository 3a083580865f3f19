"""The named tuples that pass between the engine's steps, and the shape letters used everywhere.

B  samples in a batch          T  positions of a sample (``max_length``)
D  width of the model (d_in)   F  features of the SAE (``latent_dim``, d_sae)
K  ``top_k_examples``          P  ``top_positions``
n  samples of a chunk          N  samples in all
Z  positive activations (non-zeros of the encoded features)
E  examples (feature, sample)  M  firings of those examples, in all
C  pairs (sample, feature) in which the feature fires at a counted position
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Samples(NamedTuple):
    """Consecutive samples of a corpus, padded on the right to T positions."""

    token_ids: Tensor
    """int64 [n, T]; what stands at padding does not matter."""
    attention_mask: Tensor
    """bool [n, T]: True where there is a token, False at padding."""
    counted: Tensor
    """bool [n, T]: positions whose activations count: no padding, no excluded special token or position."""
    first_sample: int
    """Absolute ``sample_index`` of row 0."""

    def part(self, start: int, stop: int) -> Samples:
        """Rows ``start:stop``, in the same memory."""
        ids, mask, counted, first_sample = self
        return Samples(ids[start:stop], mask[start:stop], counted[start:stop], first_sample + start)


class SparseFeatures(NamedTuple):
    """The positive activations of some samples, ordered by (token, feature)."""

    tokens: Tensor
    """int64 [Z], ascending: sample * T + position, the sample counted from the first one here."""
    features: Tensor
    """int64 [Z], ascending within a token."""
    values: Tensor
    """float32 [Z], all > 0."""
    num_samples: int
    num_positions: int
    """T"""
    num_features: int
    """F"""


class FeatureRows(NamedTuple):
    """The positive activations of some samples in compressed rows, one row a token: the form that is stored."""

    row_pointers: Tensor
    """int64 [n * T + 1]: the firings of token t are ``row_pointers[t]:row_pointers[t + 1]``."""
    feature_ids: Tensor
    """int32 [Z], ascending within a row."""
    values: Tensor
    """float32 [Z], all > 0."""
    num_samples: int
    num_positions: int
    """T"""
    num_features: int
    """F"""


class TopKTable(NamedTuple):
    """Examples ordered by (neuron_index, rank); rank 0 is the strongest, ties go to the lower sample_index."""

    neuron_index: Tensor
    """int64 [E]"""
    sample_index: Tensor
    """int64 [E], absolute."""
    max_activation: Tensor
    """float32 [E]"""
    firing_offsets: Tensor
    """int64 [E + 1]: the firings of example e are ``firing_offsets[e]:firing_offsets[e + 1]``."""
    positions: Tensor
    """int64 [M]: positions of the counted firings, strongest first, ties to the lower position."""
    activations: Tensor
    """float32 [M], descending within an example; the first equals ``max_activation``."""


class DrawRules(NamedTuple):
    """What is drawn from the samples of a corpus; the settings of an extraction say what each is."""

    draw_seed: int = 0
    interval_examples: int = 5
    random_examples: int = 10
    sample_one_in: int = 16


class Draws(NamedTuple):
    """Examples drawn by a seeded hash of (feature, sample), ordered by (neuron_index, interval, hash, sample_index)."""

    neuron_index: Tensor
    """int64 [E]"""
    interval: Tensor
    """int64 [E]: the interval of the sample's maximum from which the example was drawn, 0 .. 79
    (``selection.intervals``), or -1 if it was drawn from all samples in which the feature fires."""
    sample_index: Tensor
    """int64 [E], absolute."""
    max_activation: Tensor
    """float32 [E]"""
    firing_offsets: Tensor
    """int64 [E + 1]: the firings of example e are ``firing_offsets[e]:firing_offsets[e + 1]``."""
    positions: Tensor
    """int64 [M]: positions of the counted firings, strongest first, ties to the lower position."""
    activations: Tensor
    """float32 [M], descending within an example; the first equals ``max_activation``."""


class SampledFeatures(NamedTuple):
    """All firings at counted positions of a part of the samples, which a hash of their number chooses."""

    sample_index: Tensor
    """int64 [S], absolute, ascending."""
    rows: FeatureRows
    """Their firings; ``num_samples`` is S, and samples in which nothing fires are there too."""
