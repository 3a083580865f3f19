"""One SAE of an extraction."""

import math
from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from extraction_assets.settings.checkpoint_reference import SaeReference
from extraction_assets.settings.validation import Settings, at_least


class SaeSettings(Settings):
    """One sparse autoencoder and the place whose activations it reads."""

    release: str | None = None
    """SAELens's name of a published group of SAEs, such as `gemma-scope-2-4b-pt-res`; `sae_id` belongs to it.
    `extraction-assets saes` lists them."""
    sae_id: str | None = None
    """SAELens's name of one SAE of `release`, such as `layer_12_width_16k_l0_medium`."""
    path: str | None = None
    """Folder of the SAE checkpoint (relative to the YAML file), or the id of its repository on the hub. Beside
    `release` a copy of the whole repository, as `hf download --local-dir` makes it, or of the part that this SAE
    needs."""
    subfolder: str | None = None
    """Folder of this SAE inside `path`, such as `blocks.8.hook_resid_pre` or `layer_12/width_16k/average_l0_82`, or its
    file, such as `layer12.sae.pt`; only its files are downloaded."""
    revision: str | None = None
    """Branch, tag or commit of a hub SAE."""
    hook: str | None = None
    """What the SAE reads: the dotted path of a module of the model, such as `model.layers.12`, for its output; with
    `.input`, for its input; or a TransformerLens name, such as `blocks.12.hook_resid_pre`. Of a module that runs more
    than once in a forward pass, one run by its number, `path[2]`. By default what the checkpoint records."""
    hook_out: str | None = None
    """Whose activations a transcoder gives, in the same form; it is scored against them. By default what the checkpoint
    records."""
    center_input: bool | None = None
    """Subtract from the input its mean over the model's width, as TransformerLens's `center_writing_weights` does. By
    default if the checkpoint records it for a hook of the residual stream, and for GPT-2 small's published SAEs."""
    norm_scaling_factor: float | None = None
    """What inputs are multiplied by, for a checkpoint with `normalize_activations: expected_average_only_in` that does
    not hold it: sqrt(d_in) over the mean norm of its training activations."""
    fold_decoder_norm: bool = False
    """Give decoder vectors norm 1 and features their norms, as sae-lens's `fold_W_dec_norm` does."""
    minimum_variance_explained: float = 0.5
    """A chunk fails if the SAE explains a smaller fraction of the variance of the activations: a sign of a wrong layer,
    hook or normalization. A run looks at one batch first, so that most such mistakes cost no chunk."""
    maximum_l0: float | None = None
    """A run stops before its first chunk if, in one batch, more features than this fire on an average token (mean L0),
    or none does; by default half of the features. Later chunks that break the limit are marked, but stored."""
    maximum_bos_share: float = 0.5
    """A run stops before its first chunk if, in one batch, a larger share of the features is strongest at a sample's
    first token or at a special token, unless most counted positions are such tokens; 1 sets no limit. Later chunks that
    break the limit are marked, but stored."""

    _limits_are_not_negative = at_least(0, "maximum_l0", "maximum_bos_share")

    def l0_limit(self, latent_dim: int) -> float:
        """``maximum_l0``, or half of ``latent_dim`` features."""
        return latent_dim / 2 if self.maximum_l0 is None else self.maximum_l0

    @field_validator("norm_scaling_factor")
    @classmethod
    def _scale_is_positive(cls, scale: float | None) -> float | None:
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"norm_scaling_factor must be above 0, got {scale}")
        return scale

    @field_validator("subfolder")
    @classmethod
    def _subfolder_is_inside(cls, subfolder: str | None) -> str | None:
        if subfolder is not None and (subfolder.startswith("/") or ".." in Path(subfolder).parts):
            raise ValueError(f"subfolder {subfolder!r} must lie inside path")
        return subfolder

    @model_validator(mode="after")
    def _one_checkpoint_is_named(self) -> Self:
        if (self.release is None) != (self.sae_id is None):
            there, missing = ("release", "sae_id") if self.sae_id is None else ("sae_id", "release")
            raise ValueError(f"{there} names an SAE together with {missing}: set both, or path alone")
        if self.release is None and self.path is None:
            raise ValueError("an SAE needs path, the folder of its checkpoint, or release and sae_id, its names")
        if self.release is not None and self.subfolder is not None:
            raise ValueError("subfolder says which SAE of path is meant, and so do release and sae_id: leave one out")
        return self

    @property
    def checkpoint(self) -> SaeReference:
        """Which checkpoint is meant."""
        return SaeReference(self.path, self.subfolder, self.revision, self.release, self.sae_id)

    @property
    def declared_hooks(self) -> list[str]:
        """Hooks that are set: what the SAE reads, and what a transcoder gives."""
        return [hook for hook in (self.hook, self.hook_out) if hook is not None]


class ResolvedSae(SaeSettings):
    """The settings of an SAE, completed with what its checkpoint records (``resolve_sae``)."""

    hook: str
    """What the SAE reads."""

    @property
    def hooks(self) -> list[str]:
        """What the SAE reads, and what a transcoder gives."""
        return self.declared_hooks

    @property
    def written_hook(self) -> str:
        """Where its reconstructions belong: the hook that it reads, or a transcoder's output hook."""
        return self.hook_out or self.hook
