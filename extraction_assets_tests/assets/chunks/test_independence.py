"""What an extraction stores for one SAE does not depend on the others."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, FalconConfig

from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import D_MODEL, make_settings


def falcon(tiny_folder: Path, folder: Path) -> str:
    """The tiny tokenizer with a Falcon, which adds what its attention gives to its MLP's output in place."""
    shutil.copytree(tiny_folder / "model", folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": D_MODEL, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = AutoModel.from_config(FalconConfig(**sizes, parallel_attn=True, alibi=False, max_position_embeddings=64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_features_of_falcons_mlp_are_the_same_beside_a_deeper_sae(tiny_folder: Path, tmp_path: Path) -> None:
    path, files = falcon(tiny_folder, tmp_path / "falcon"), []
    saes = make_settings(tiny_folder).model_dump()["saes"]
    saes["relu"]["hook"], saes["topk"]["hook"] = "h.0.mlp", "h.1"
    for names in (["relu"], ["relu", "topk"]):
        chosen = {name: saes[name] for name in names}
        settings = make_settings(tiny_folder, language_model={"path": path}, saes=chosen)
        project = Project(settings, tmp_path / "-".join(names))
        project.corpus()
        project.chunks(0, 0)
        files.append(project.files("tiny/relu/**/*"))
    alone, beside = files
    assert alone == beside
    assert alone
