"""What a configuration alone decides is found once, and again where the configuration is another."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel, LlamaConfig

from extraction_assets.engine.models.files import remembered
from extraction_assets.engine.models.files.remembered import ByConfiguration
from extraction_assets.engine.models.language_model import HookError, probe_hooks
from extraction_assets.engine.models.positions import fewer_positions
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.tiny_types import tiny_config

SMALL = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


def llama(folder: Path, width: int = 24) -> str:
    LlamaConfig(**SMALL, hidden_size=width, intermediate_size=40).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Types of the models that are made from a configuration from now on."""
    made: list[str] = []
    make = AutoModel.from_config

    def noted(config: Any, **options: Any) -> Any:
        made.append(config.model_type)
        return make(config, **options)

    monkeypatch.setattr(AutoModel, "from_config", noted)
    return made


def test_widths_are_found_once_wherever_the_folder_lies(tmp_path: Path, built: list[str]) -> None:
    first = probe_hooks(local(llama(tmp_path / "one")), ["layers.0", "layers.1"])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert probe_hooks(local(tmp_path / "two"), ["layers.0", "layers.1"]) == first == {"layers.0": 24, "layers.1": 24}
    assert len(built) <= 1  # none where an earlier test has asked


def test_another_configuration_in_the_same_folder_has_its_own_widths(tmp_path: Path) -> None:
    assert probe_hooks(local(llama(tmp_path)), ["layers.0"]) == {"layers.0": 24}
    assert probe_hooks(local(llama(tmp_path, 32)), ["layers.0"]) == {"layers.0": 32}


def test_a_hook_that_does_not_exist_is_refused_every_time(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(HookError, match=r"layers\.9"):
            probe_hooks(local(llama(tmp_path)), ["layers.9"])


def test_each_number_of_positions_is_asked_for_itself(tmp_path: Path, built: list[str]) -> None:
    tiny_config("roberta").save_pretrained(tmp_path)
    assert [fewer_positions(local(tmp_path), length) for length in (63, 64, 64, 63)] == [None, 63, 63, None]
    assert len(built) <= 4  # two models a number, once


def test_a_model_with_code_of_its_own_is_asked_every_time(tmp_path: Path) -> None:
    numbers = iter(range(9))
    trusted = local(llama(tmp_path), trust_remote_code=True)
    results = ByConfiguration[int]()
    assert [results.of(trusted, lambda: next(numbers)) for _ in range(2)] == [0, 1]


def test_results_are_not_kept_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 2)
    results, checkpoint, found = ByConfiguration[int](), local(llama(tmp_path)), list[int]()
    for number in (0, 1, 1, 2, 0):
        results.of(checkpoint, lambda number=number: found.append(number) or number, number)  # type: ignore[misc]
    assert found == [0, 1, 2, 0]
