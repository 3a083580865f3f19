"""A Gemma 3 with its image tower in bfloat16 and one of its published SAEs by name: from text to merged examples."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

from extraction_assets.engine.saes.published import published_sae
from extraction_assets.settings import STANDARD_LIBRARY, ExtractionSettings
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.saes.formats.published_layouts import D_IN, write_gemma_scope_2
from extraction_assets_tests.project import Project

LAYERS, LENGTH = 6, 48
PUBLISHED = {
    "residual": ("gemma-scope-2-4b-pt-res-all", "layer_5_width_16k_l0_big"),
    "attention": ("gemma-scope-2-4b-pt-att-all", "layer_3_width_16k_l0_big"),
    "transcoder": ("gemma-scope-2-4b-pt-transcoders-all", "layer_4_width_16k_l0_big_affine"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Gemma 3 as the larger ones are published: the text model inside the one that takes images."""
    folder = tiny.make_language_model(tmp_path_factory.mktemp("gemma") / "model")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    for file in ("config.json", "model.safetensors"):
        (folder / file).unlink()
    text = Gemma3TextConfig(
        vocab_size=vocabulary + 1,
        hidden_size=D_IN,
        intermediate_size=2 * D_IN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=D_IN // 2,
        sliding_window=16,  # of every layer but the sixth
    )
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    vision = SiglipVisionConfig(hidden_size=8, intermediate_size=8, vision_use_head=False, **sizes)
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=vocabulary, dtype="bfloat16"
    )
    torch.manual_seed(0)
    Gemma3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def extraction(model: Path, repository: Path, **changes: Any) -> ExtractionSettings:
    loose = {"minimum_variance_explained": -1e9, "maximum_bos_share": 1}  # random SAEs reconstruct nothing
    saes = {}
    for name, (release, sae_id) in PUBLISHED.items():
        if not (repository / published_sae(release, sae_id).path).exists():
            write_gemma_scope_2(repository, published_sae(release, sae_id).path)
        saes[name] = {"release": release, "sae_id": sae_id, "path": str(repository), **loose}
    values: dict[str, Any] = {
        "name": "gemma_3",
        "language_model": {"path": str(model), "dtype": "bfloat16"},
        "corpus": {"source": STANDARD_LIBRARY, "max_length": LENGTH},
        "saes": saes,
        "evaluation_samples": 96,
        "chunk_size": 32,
        "top_k_examples": 5,
    }
    return ExtractionSettings.model_validate({**values, **changes})


def rows(project: Project) -> list[tuple[Any, ...]]:
    of = "feature_activations a join extractions e on e.id = a.extraction_id"
    query = f"select sae, neuron_index, rank, sample_index, max_activation from {of}"
    return sorted(project.rows(query))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_published_saes_run_by_name_to_merged_examples(device: str, model: Path, tmp_path: Path) -> None:
    settings = extraction(model, tmp_path / "gemma-scope-2-4b-pt")
    ours = Project(settings, tmp_path / "ours", device=device).merged()
    legacy = Project(settings, tmp_path / "legacy", device=device, vectorized=False).merged()
    assert {row[0] for row in rows(ours)} == set(PUBLISHED)
    assert rows(ours) == rows(legacy)
