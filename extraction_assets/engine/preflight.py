"""What can be known to be wrong before any work starts."""

from collections.abc import Mapping
from pathlib import Path

from extraction_assets.engine.corpus import CorpusError
from extraction_assets.engine.language_model import HookError, context_length, probe_hooks
from extraction_assets.engine.sae_formats import CheckpointError, SAEWeights, read_checkpoint


def check_combination(
    model_path: str,
    saes: Mapping[str, tuple[Path, str]],
    max_length: int,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, SAEWeights]:
    """The SAEs' weights by name, after checking that every hook exists and gives what its SAE reads.

    ``saes`` is {name: (checkpoint folder, hook)}. Reads the SAEs' weights and the model's configuration, not its
    weights. ``max_length`` is the length of a sample. Raises CheckpointError, HookError, CorpusError or
    UntrustedCodeError.
    """
    context = context_length(model_path, revision=revision, trust_remote_code=trust_remote_code)
    if context is not None and max_length > context:
        raise CorpusError(
            f"max_length is {max_length}, but {model_path} was made for at most {context} positions: lower max_length"
        )
    weights = {name: read_checkpoint(path) for name, (path, _) in saes.items()}
    hooks = [hook for _, hook in saes.values()]
    widths = probe_hooks(model_path, hooks, revision=revision, trust_remote_code=trust_remote_code)
    for name, (path, hook) in saes.items():
        if weights[name].d_in != widths[hook]:
            raise CheckpointError(
                f"SAE {name!r} ({path}) reads activations of width d_in = {weights[name].d_in}, but hook {hook!r} of "
                f"{model_path} gives {widths[hook]}: they do not belong together"
            )
    return weights


__all__ = ["CheckpointError", "HookError", "check_combination"]
