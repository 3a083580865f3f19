"""What the configurations of OpenMOSS's dictionaries say, in both on-disk forms (``llama_scope``, ``llamascopium``).

Names, meanings and defaults as in OpenMOSS's Llamascopium, before its renaming Language-Model-SAEs (``SAEConfig``,
``SparseDictionary.compute_norm_factor``, ``SparseAutoEncoder.encode``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    text_or_none,
    true_or_false,
    whole_number,
)
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import Architecture, Normalization

if TYPE_CHECKING:
    pass

_ARCHITECTURES: dict[str, Architecture] = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}
_OF_A_BATCH = "depends on what else is encoded with a token"
_REFUSED = {
    "batchtopk": _OF_A_BATCH + ": convert it to jumprelu",
    "layertopk": "chooses among the features of several layers",
    "batchlayertopk": "chooses among the features of several layers",
}


class OpenMossConfig:
    """The entries that decide what encode computes, of the configuration in ``file`` of folder ``path``.

    Every property raises CheckpointError for a value that is not understood.
    """

    def __init__(self, path: Path, file: str, config: Mapping[str, Any]) -> None:
        self._path, self.file, self._config = path, file, config

    def __getitem__(self, name: str) -> Any:
        return self._config.get(name)

    def error(self, text: str) -> CheckpointError:
        return CheckpointError(f"SAE {self._path}: {self.file}: {text}")

    def flag(self, name: str, default: bool) -> bool:
        return true_or_false(self._path, self.file, self._config, name, default)

    def whole(self, name: str, default: int) -> int:
        return whole_number(self._path, self._config.get(name, default), f"{self.file}: {name}")

    def number(self, name: str, value: Any) -> float:
        """``value``, called ``name``, as a finite number above 0."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.error(f"{name} = {shown(value)}, expected a number above 0")
        return float(value)

    @property
    def architecture(self) -> Architecture:
        """By its activation function."""
        name = self["act_fn"]
        if not isinstance(name, str) or name not in _ARCHITECTURES:
            why = _REFUSED.get(str(name), f"known: {', '.join(_ARCHITECTURES)}")
            raise self.error(f"act_fn = {shown(name)} is not supported ({why})")
        return _ARCHITECTURES[name]

    @property
    def normalization(self) -> Normalization:
        """What is done to the input."""
        name = self["norm_activation"]
        known: dict[str, Normalization] = {"dataset-wise": "expected_average_only_in", "inference": "none"}
        if not self.is_transcoder:  # a transcoder's output would be restored by its own norm, which is what is sought
            known["token-wise"] = "constant_norm_rescale"
        if not isinstance(name, str) or name not in known:
            why = _OF_A_BATCH if name == "batch-wise" else f"known: {', '.join(known)}"
            raise self.error(f"norm_activation = {shown(name)} is not supported ({why})")
        return known[name]

    @property
    def hooks(self) -> tuple[str | None, str | None]:
        """Of input and output, which are the same unless it is a transcoder; None if it does not say."""
        hook, out = self["hook_point_in"], self["hook_point_out"]
        if not isinstance(hook, str | None) or not isinstance(out, str | None):
            raise self.error(f"hook_point_in = {shown(hook)} and hook_point_out = {shown(out)}, expected names")
        return text_or_none(hook), text_or_none(out) or text_or_none(hook)

    @property
    def is_transcoder(self) -> bool:
        hook, out = self.hooks
        return hook != out

    @property
    def subtracts_decoder_bias(self) -> bool:
        """Before encoding; in the scale of the normalised input."""
        subtracts = self.flag("apply_decoder_bias_to_pre_encoder", False)
        if subtracts and self.is_transcoder:
            raise self.error("apply_decoder_bias_to_pre_encoder of a transcoder is not supported")
        return subtracts

    def refuse_gates(self) -> None:
        """Raises CheckpointError for an encoder that is more than one matrix product."""
        if self.flag("use_glu_encoder", False):
            raise self.error("use_glu_encoder = true is not supported: its encoder is the product of two")

    def check_widths(self, d_in: int, latent_dim: int, stated_latents: int) -> None:
        """Raises CheckpointError unless the weights' widths are as stated."""
        stated = (self.whole("d_model", d_in), stated_latents)
        if stated != (d_in, latent_dim):
            raise self.error(
                f"says {stated[0]} numbers a token and {stated[1]} features, but the weights have {d_in} and "
                f"{latent_dim}: the two files do not belong together"
            )

    def record(self, **known: Any) -> SaeRecord:
        """Its hooks, with what else is ``known``."""
        hook, out = self.hooks
        hook_out = out if self.is_transcoder else None
        return SaeRecord(hook=hook, hook_out=hook_out, is_transcoder=self.is_transcoder, **known)


class Factors(NamedTuple):
    """What a dictionary of normalised activations multiplies them by."""

    of_input: float
    of_output: float


def factors(width: int, norm_in: float, norm_out: float) -> Factors:
    """To an average norm of sqrt(width), from the average norms of a dataset."""
    return Factors(math.sqrt(width) / norm_in, math.sqrt(width) / norm_out)
