"""Which optional packages stand in the numerics record of a chunk."""

from importlib.metadata import version

import pytest
import torch
from transformers import AutoModel

from extraction_assets.engine.models.forward import kernels
from extraction_assets.engine.models.forward.kernels import kernel_versions
from extraction_assets_tests.engine.families import FAMILIES


def model_of(family: str) -> torch.nn.Module:
    with torch.device("meta"):
        return AutoModel.from_config(FAMILIES[family].config())  # type: ignore[no-any-return]


@pytest.fixture
def _two_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is installed everywhere, and one that is nowhere."""
    monkeypatch.setattr(kernels, "_OPTIONAL", ("torch", "no-such-package-of-kernels"))


@pytest.mark.usefixtures("_two_packages")
@pytest.mark.parametrize("family", ["qwen3_5_text", "qwen3_5", "qwen3_5_moe"])
def test_linear_attention_runs_on_what_is_installed(family: str) -> None:
    assert kernel_versions(model_of(family)) == {"torch": version("torch")}


@pytest.mark.usefixtures("_two_packages")
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_oss", "qwen3_moe"])
def test_other_models_run_on_torch_alone(family: str) -> None:
    assert kernel_versions(model_of(family)) == {}
