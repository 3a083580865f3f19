"""What ``check`` finds of an extraction whose files or numbers are not what they seem."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import extraction_assets
from extraction_assets.early_checks.extraction import Examination, Machine, examine_extraction
from extraction_assets.engine.corpora import hub_datasets
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.engine.models import test_hostile_models as models
from extraction_assets_tests.engine.saes.formats.test_hostile import HOSTILE
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

DEMO = Path(extraction_assets.__file__).parent / "demo"


def examined(tiny_folder: Path, home: Path, sae: Path, model: Path | None = None, **options: Any) -> Examination:
    """What ``check`` says of one SAE on the tiny model, or on another."""
    saes = {"own": {"path": str(sae), "hook": "layers.1", "minimum_variance_explained": -1e9, **options}}
    changes: dict[str, Any] = {} if model is None else {"language_model": model_options(model)}
    settings = make_settings(tiny_folder, saes=saes, **changes)
    return examine_extraction(settings, machine(home), logging.getLogger("test"))


def machine(home: Path) -> Machine:
    return Machine(torch.device("cpu"), "high", ChunkStore(home), None)


def model_options(model: Path) -> dict[str, Any]:
    return {"path": str(model), "dtype": "float16" if "half" in model.name else "auto"}


def errors(found: Examination) -> list[str]:
    return [finding.message for finding in found.findings if finding.severity == "error"]


def warnings(found: Examination) -> list[str]:
    return [finding.message for finding in found.findings if finding.severity == "warning"]


def spoiled(tiny_folder: Path, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The tiny model with other weights."""
    shutil.copytree(tiny_folder / "model", folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_data_set_of_a_hub_that_does_not_answer_is_one_error_with_advice(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr(hub_datasets, "_unanswered", lambda _repository: ConnectionError("no route"))
    settings = make_settings(tiny_folder)
    settings = settings.model_copy(update={"corpus": settings.corpus.model_copy(update={"source": "someone/away"})})
    (error,) = errors(examine_extraction(settings, machine(home), logging.getLogger("test")))
    assert "try again later, or on a machine with network `hf download someone/away" in error


def test_a_sound_extraction_has_no_error(tiny_folder: Path, home: Path) -> None:
    assert errors(examined(tiny_folder, home, tiny_folder / "relu")) == []


def test_what_may_be_an_unknown_head_of_the_model_is_a_warning(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    def with_head(all_: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"model.{key}": own for key, own in all_.items()} | {"steering.weight": torch.ones(2)}

    model = spoiled(tiny_folder, tmp_path / "model", with_head)
    found = examined(tiny_folder, home, tiny_folder / "relu", model)
    assert errors(found) == []
    assert any("model.safetensors holds steering.weight beside the model" in text for text in warnings(found))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sae_is_one_error_with_its_files_name(
    name: str, tiny_folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, file, spoil = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "sae")
    spoil(tmp_path / "sae")
    (message,) = errors(examined(tiny_folder, home, tmp_path / "sae"))
    assert str(tmp_path / "sae") in message
    assert file in message


@pytest.mark.parametrize("name", models.HOSTILE)
def test_a_hostile_model_is_one_error_with_its_folder(name: str, tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    _, spoil = models.HOSTILE[name]
    shutil.copytree(tiny_folder / "model", tmp_path / "model")
    spoil(tmp_path / "model")
    (message,) = errors(examined(tiny_folder, home, tiny_folder / "relu", tmp_path / "model"))
    assert str(tmp_path / "model") in message
    assert message.isprintable()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_weights_that_did_not_load_are_an_error_that_names_them(
    prefix: str, tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    model = spoiled(tiny_folder, tmp_path / "m", lambda all_: {prefix + key: own for key, own in all_.items()})
    (message,) = errors(examined(tiny_folder, home, tiny_folder / "relu", model))
    assert "not in the files: embed_tokens.weight, layers.0.input_layernorm.weight" in message
    assert f"{prefix}embed_tokens.weight" in message


def overflowing(tiny_folder: Path, folder: Path) -> Path:
    """A model whose weights fit float16 and whose activations do not."""
    name = "layers.0.self_attn.{}_proj.weight"
    large = {name.format("v"): torch.full((16, 16), 10.0), name.format("o"): torch.full((16, 16), 1000.0)}
    return spoiled(
        tiny_folder, folder, lambda all_: {**all_, "embed_tokens.weight": all_["embed_tokens.weight"].abs()} | large
    )


def test_activations_that_overflow_float16_are_an_error(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    model = overflowing(tiny_folder, tmp_path / "half")
    (message,) = errors(examined(tiny_folder, home, tiny_folder / "relu", model))
    assert "holds a NaN or an infinity in sample 0, position 1 (" in message
    assert "set language_model.dtype" in message
    wide = Path(shutil.move(model, tmp_path / "wide"))
    assert not any("NaN" in message for message in errors(examined(tiny_folder, home, tiny_folder / "relu", wide)))


def test_a_run_stops_for_them_before_its_first_chunk(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    import dagster as dg

    model = overflowing(tiny_folder, tmp_path / "half")
    project = Project(make_settings(tiny_folder, language_model=model_options(model)), home)
    project.corpus()
    with pytest.raises(dg.Failure, match="holds a NaN or an infinity in sample 0, position 1"):
        project.chunks()
    assert list(project.files("tiny/**/*")) == ["tiny/corpus.json"]


def test_samples_of_which_no_token_counts_are_an_error(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "short.txt").write_text("fox")
    corpus = {"source": str(tmp_path / "texts"), "max_length": 16, "exclude_first_positions": 12}
    settings = make_settings(tiny_folder, corpus=corpus, evaluation_samples=1)
    found = examine_extraction(settings, machine(home), logging.getLogger("test"))
    assert len(errors(found)) == 2
    assert all("no token of one batch counts" in message for message in errors(found))


def demo(home: Path, sae: Path, hook: str) -> Examination:
    """The demo's SAE, which explains 0.93 at model.layers.1."""
    saes = {"own": {"path": str(sae), "hook": hook}}
    corpus = {"source": "standard-library", "max_length": 128}
    values = {"name": "demo", "language_model": {"path": str(DEMO / "language_model")}, "corpus": corpus, "saes": saes}
    settings = ExtractionSettings.model_validate({**values, "evaluation_samples": 16})
    return examine_extraction(settings, machine(home), logging.getLogger("test"))


def explained_elsewhere(warning: str) -> float:
    """At model.layers.1, by a warning; the corpus is that of the Python that runs, so that it differs a little."""
    found = re.search(r"but at hook 'model\.layers\.1' it explains (0\.\d+)", warning)
    assert found is not None, warning
    return float(found[1])


@pytest.mark.slow
def test_an_sae_at_the_block_before_the_right_one_gets_the_better_hook_named(home: Path, tmp_path: Path) -> None:
    """It explains enough where it stands, by the default."""
    found = demo(home, DEMO / "sae", "model.layers.0")
    assert errors(found) == []
    assert 0.7 < found.sanity["own"].variance_explained < 0.85
    recorded, better = warnings(found)
    assert recorded == "SAE 'own': it was trained on hook model.layers.1, but reads model.layers.0"
    assert 0.85 < explained_elsewhere(better) < 0.95
    assert warnings(demo(home, DEMO / "sae", "layers.1")) == []


@pytest.mark.slow
def test_it_is_named_where_the_checkpoint_does_not_say_its_hook_too(home: Path, tmp_path: Path) -> None:
    sae = Path(shutil.copytree(DEMO / "sae", tmp_path / "sae"))
    config = json.loads((sae / "cfg.json").read_text())
    del config["metadata"]["hook_name"]
    (sae / "cfg.json").write_text(json.dumps(config))
    (better,) = warnings(demo(home, sae, "model.layers.0"))
    assert 0.85 < explained_elsewhere(better) < 0.95
    assert warnings(demo(home, sae, "model.layers.1")) == []
