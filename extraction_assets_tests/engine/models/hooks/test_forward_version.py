"""What earlier versions may have stored wrongly gets another fingerprint; everything else keeps its own."""

import json
from pathlib import Path

import pytest

from extraction_assets.engine.models.hooks.forward_version import forward_version


@pytest.mark.parametrize(
    ("config", "hook", "version"),
    [
        ({"model_type": "llama"}, "model.layers.1.mlp", 1),
        ({"model_type": "falcon"}, "transformer.h.0.mlp", 2),
        ({"model_type": "falcon"}, "transformer.h.0", 1),
        ({"model_type": "albert"}, "encoder.albert_layer_groups.0.albert_layers.0", 2),
        ({"model_type": "paligemma"}, "language_model.layers.3", 2),
        ({"model_type": "bart", "is_encoder_decoder": True}, "decoder.layers.1", 2),
        ({"model_type": "bart", "is_encoder_decoder": True}, "encoder.layers.1", 1),
        ({"model_type": "phi"}, "blocks.1.hook_resid_post", 1),
        ({"model_type": "fnet"}, "encoder.layer.1", 2),
        ({}, "layers.1", 1),
        ([], "layers.1", 1),
    ],
)
def test_only_hooks_that_were_wrong_change(config: object, hook: str, version: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert forward_version(tmp_path, hook) == version


def test_a_folder_without_a_configuration_is_reported_elsewhere(tmp_path: Path) -> None:
    assert forward_version(tmp_path, "layers.1") == 1
