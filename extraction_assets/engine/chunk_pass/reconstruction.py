"""How much of the variance an SAE explains over the first samples of a chunk."""

from typing import NamedTuple

from torch import Tensor

from extraction_assets.engine.memory import within_memory
from extraction_assets.engine.saes.sae import SAE, VarianceExplained
from extraction_assets.engine.selection.sparse import each_sample, take_samples
from extraction_assets.engine.shapes import SparseFeatures


class _Kept(NamedTuple):
    """Copies of some samples, of which nothing larger is kept."""

    features: SparseFeatures
    activations: Tensor
    target: Tensor
    counted: Tensor


class Reconstructions:
    """Decodes the first ``most`` samples of a chunk, one at a time: so no batch size changes a bit.

    On a GPU that starts 25 kernels a sample, for which the next forward pass must not wait: samples are copied when
    their batch is taken, and decoded by ``add_up``, when that pass is queued.
    """

    def __init__(self, sae: SAE, most: int) -> None:
        self._sae, self._left = sae, most
        self._kept: list[_Kept] = []
        self._explained = VarianceExplained()

    def keep(self, features: SparseFeatures, activations: Tensor, target: Tensor, counted: Tensor) -> None:
        """The features of n samples at wanted positions, what was encoded [n, T, D], what is to be reconstructed
        [n, T, D_out] and the positions that count, bool [n, T]. At most one synchronisation, none once all are kept."""
        count = min(features.num_samples, self._left)
        if count <= 0 or not self._sae.reconstructs:
            return

        def copies() -> _Kept:
            first = take_samples(features, 0, count)
            first = first._replace(
                tokens=first.tokens.clone(), features=first.features.clone(), values=first.values.clone()
            )
            inputs = activations[:count].clone()
            outputs = inputs if target is activations else target[:count].clone()
            return _Kept(first, inputs, outputs, counted[:count])

        self._kept.append(within_memory(copies, copies))  # they need little: freeing unused memory makes room
        self._left -= count

    def add_up(self) -> None:
        """Decodes what was kept. One synchronisation if there is anything."""
        while self._kept:
            features, activations, target, counted = self._kept.pop(0)
            for row, one in enumerate(each_sample(features, features.num_samples)):
                self._add(one, activations[row : row + 1], target[row : row + 1], counted[row])

    def _add(self, features: SparseFeatures, x: Tensor, y: Tensor, counted: Tensor) -> None:
        def score() -> None:
            self._explained.add(self._sae.target(y)[0], self._sae.decode(features, x)[0], counted)

        within_memory(score, score)

    def value(self) -> Tensor | None:
        """Float64 scalar on the device; None of an SAE that encodes only."""
        return self._explained.value() if self._sae.reconstructs else None
