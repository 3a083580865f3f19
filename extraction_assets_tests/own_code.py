"""A model and tokenizer that transformers cannot load without Python code that comes with them."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

_CODE = """
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnModel(LlamaModel):
    config_class = OwnConfig


class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def make_own_model(llama: str | Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Llama in folder ``llama`` under a name of its own, with its code; what transformers copies of that goes
    beside ``folder``."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder.with_name("modules")))
    monkeypatch.setattr("sys.path", [*sys.path])
    shutil.copytree(llama, folder)
    (folder / "own_llama.py").write_text(_CODE)
    classes = {"AutoConfig": "own_llama.OwnConfig", "AutoModel": "own_llama.OwnModel"}
    change_json(folder / "config.json", model_type="own_llama", auto_map=classes)
    tokenizer = {"AutoTokenizer": [None, "own_llama.OwnTokenizer"]}
    change_json(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=tokenizer)
    return folder


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
