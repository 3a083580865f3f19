"""The tiny model, four SAEs at two hooks, and the pass that others are compared with."""

from pathlib import Path

import pytest

from extraction_assets.engine.chunk_pass.forward import (
    forward_pass,
)
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.chunk_pass.build import HOOKS, SAMPLES, run_pass


@pytest.fixture(scope="module")
def model(llama: str) -> LanguageModel:
    return load_language_model(local(llama), ["layers.0", "layers.1"])


@pytest.fixture(scope="module")
def tasks(sae_folders: dict[str, Path]) -> list[SaeTask]:
    return [SaeTask(name, HOOKS[name], load_sae(folder)) for name, folder in sae_folders.items()]


@pytest.fixture(scope="module")
def expected(model: LanguageModel, tasks: list[SaeTask]) -> ChunkResult:
    """The pass with one sample reduced at a time."""
    return run_pass(forward_pass(model, SAMPLES, 4), tasks, size=1)
