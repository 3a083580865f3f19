"""Unembedding and final norm of a language model, read from its safetensors files: ``AutoModel`` has no head."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.directions.final_norm import FinalNorm, measure_norm
from extraction_assets.engine.directions.stream import FollowedModel, NotDefined, follow
from extraction_assets.engine.file_boundary import read_safetensors
from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.file_boundary.safetensors_file import FLOATS
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.files.model_folder import model_file
from extraction_assets.engine.models.files.stored_weights import StoredWeights, read_stored_weights
from extraction_assets.engine.models.weights.loaded_weights import are_equal, keys_by_name, not_finite

_SCALES = {
    "final_logit_softcapping": "the soft-capping of logits at {}",
    "logit_scale": "the factor {} of logits",
    "logits_scaling": "the divisor {} of logits",
}
"""Fields of configurations -> what is left out where they are set."""


class Unembedding(NamedTuple):
    """From a direction of the residual stream to logits: weight · norm(direction)."""

    weight: Tensor
    """float32 [V, D], on the device that was asked for"""
    norm: FinalNorm
    description: str
    """How the norm enters, which tensors were read, and what is left out."""

    @property
    def width(self) -> int:
        return self.weight.shape[1]


def read_unembedding(checkpoint: LocalCheckpoint, hook: str, device: torch.device | str = "cpu") -> Unembedding:
    """What the logit lens of ``hook`` needs of a language model: ``lm_head.weight``, or the token embedding that it is
    tied to, and the final norm, in float32. No other tensor is read, whatever the number of files.

    A tensor of another name or prefix is found as transformers renames it. Raises NotDefined with the reason where a
    logit lens is not defined, and CheckpointError if a file is damaged.
    """
    found = follow(checkpoint, hook)
    tensors = _HeadTensors(checkpoint, found.whole)
    name, tied = tensors.unembedding(found)
    norm = _norm(found, tensors, found.whole.get_output_embeddings().weight.shape[1])
    weight = tensors.read(name, device)
    return Unembedding(weight, norm, _description(found, norm, tensors.key(name), tied))


class _HeadTensors:
    """The tensors of a checkpoint by the names that the class with its head has for them."""

    def __init__(self, checkpoint: LocalCheckpoint, whole: Any) -> None:
        self._stored: StoredWeights = read_stored_weights(checkpoint.folder, whole.config)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in whole.state_dict(keep_vars=True).items()}
        self._keys, self._rivals = keys_by_name(whole, self._stored)

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def key(self, name: str) -> str:
        """How the files call a tensor."""
        return self._keys[name][0]

    def unembedding(self, found: FollowedModel) -> tuple[str, str | None]:
        """Name of the unembedding, and that of the unembedding itself where it is the embedding that it is tied to.

        Where the files hold both, it is its own, as transformers has it.
        """
        name = f"{found.head}.weight"
        if name in self:
            return name, None
        whole = found.whole
        embedding = whole.get_input_embeddings()
        embedded = next((f"{path}.weight" for path, one in whole.named_modules() if one is embedding), "")
        is_tied = whole.get_output_embeddings().weight is getattr(embedding, "weight", None)
        if is_tied and embedded in self:
            return embedded, name
        why = f"nor {embedded}, which it is tied to" if is_tied else "and the token embedding is not tied to it"
        raise NotDefined(f"{self._stored.file} holds no {name}, {why}")

    def read(self, name: str, device: torch.device | str) -> Tensor:
        """float32, on ``device``. Raises NotDefined for packed numbers, CheckpointError for what does not fit."""
        file, stored = self._stored.file, self._stored.tensors[self.key(name)]
        error = model_file(self._stored.folder, stored.file).error
        if stored.dtype not in FLOATS:
            packed = f"{stored.file} holds {shown(self.key(name))} in type {stored.dtype}"
            raise NotDefined(f"{packed}, which only a quantization_config explains")
        if stored.shape != self._shapes[name]:
            raise error(f"holds {shown(self.key(name))} of shape {stored.shape}, expected {self._shapes[name]}")
        if name in self._rivals and not are_equal(self._stored, self._keys[name]):
            raise error(f"and other keys or files of {file} hold {shown(name)} with different numbers")
        tensor = read_safetensors(model_file(self._stored.folder, stored.file), device)[self.key(name)]
        if not_finite({name: tensor}):
            raise error(f"holds NaN or infinite numbers in {shown(self.key(name))}")
        return tensor


def _norm(found: FollowedModel, tensors: _HeadTensors, width: int) -> FinalNorm:
    """The final norm with its weights from the files."""
    module = found.whole.get_submodule(found.norm)
    names = [name for name, _ in module.named_parameters()]
    absent = [name for name in names if f"{found.norm}.{name}" not in tensors]
    if absent:
        raise NotDefined(f"the files hold no {found.norm}.{absent[0]}, of the final norm")
    weights = {name: tensors.read(f"{found.norm}.{name}", "cpu") for name in names}
    return measure_norm(module, found.norm, weights, width)


def _description(found: FollowedModel, norm: FinalNorm, key: str, tied: str | None) -> str:
    kind = type(found.whole.get_submodule(found.norm)).__name__
    centred = "the mean over the width subtracted, then " if norm.is_centred else ""
    gain = f"times its gain ({norm.rule})" if norm.rule else "no gain"
    unembedding = f"unembedded by {key}" + (f", to which {tied} is tied" if tied else "")
    left_out = ["the division by the norm's size"]
    left_out += ["the norm's bias"] if norm.has_bias else []
    left_out += ["the unembedding's bias"] if found.whole.get_output_embeddings().bias is not None else []
    config = found.whole.config.get_text_config()
    scales = ((text, getattr(config, name, None)) for name, text in _SCALES.items())
    left_out += [text.format(f"{value:g}") for text, value in scales if isinstance(value, (int, float)) and value != 1]
    return f"{kind} {found.norm}: {centred}{gain}; {unembedding}; left out: {', '.join(left_out)}"
