"""A model with code of its own has the buffers that its code computes."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.models.weights.computed_buffers import restore_computed_buffers
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.own_code import change_json

CODE = """
import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedModel


class OwnConfig(LlamaConfig):
    model_type = "own_positions"


class Positions(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.register_buffer("angles", torch.arange(count) / count, persistent=False)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x + self.scale * self.angles[: x.shape[1], None]


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = Positions(64)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask=None):
        return self.positions(self.embed(input_ids))
"""


@pytest.fixture
def folder(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = Path(shutil.copytree(llama, tmp_path / "own"))
    (folder / "own_positions.py").write_text(CODE)
    classes = {"AutoConfig": "own_positions.OwnConfig", "AutoModel": "own_positions.OwnModel"}
    change_json(folder / "config.json", model_type="own_positions", auto_map=classes)
    weights = {"embed.weight": torch.zeros(320, 16), "positions.scale": torch.full((1,), 2.0)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def loaded(folder: Path, dtype: str = "float32") -> LanguageModel:
    return load_language_model(local(folder, trust_remote_code=True), ["positions"], dtype=dtype)


def test_a_buffer_that_no_file_holds_is_as_the_code_computes_it(folder: Path) -> None:
    ids = torch.zeros(1, 5, dtype=torch.int64)
    output = loaded(folder).activations(ids, torch.ones_like(ids).bool())["positions"]
    assert torch.equal(output[0, :, 3], 2 * torch.arange(5) / 64)


def test_it_is_computed_in_the_models_type(folder: Path) -> None:
    buffer = loaded(folder, "bfloat16").module.get_buffer("positions.angles")
    assert buffer.dtype == torch.bfloat16
    assert torch.equal(buffer, (torch.arange(64) / 64).to(torch.bfloat16))


def test_what_the_files_hold_stays_and_nothing_is_left_changed(folder: Path) -> None:
    before = nn.Module.register_parameter, torch.get_default_dtype()
    assert loaded(folder, "bfloat16").module.get_parameter("positions.scale").item() == 2
    assert (nn.Module.register_parameter, torch.get_default_dtype()) == before


def test_a_model_of_transformers_is_not_made_again(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_language_model(local(llama), ["layers.0"]).module
    monkeypatch.setattr(type(module), "__init__", lambda *_: pytest.fail("it was made again"))
    restore_computed_buffers(module)
