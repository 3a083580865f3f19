"""Optional packages whose kernels a forward pass runs on, beside torch and transformers."""

from importlib.metadata import PackageNotFoundError, version

from torch import nn

_OPTIONAL = ("causal-conv1d", "flash-linear-attention", "kernels", "mamba-ssm")
"""What transformers takes for linear attention and state spaces where it is installed, in place of its own code."""


def kernel_versions(module: nn.Module) -> dict[str, str]:
    """Package -> version, of those that are installed, for a model with linear attention or a state space (which
    convolve over positions); empty for other models. Last bits depend on them."""
    if not any(name.rpartition(".")[2] == "conv1d" for name, _ in module.named_modules()):
        return {}
    found = {}
    for package in _OPTIONAL:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
