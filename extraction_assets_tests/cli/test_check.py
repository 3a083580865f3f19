"""``check``: what would fail a run is an error of one sentence before it starts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from extraction_assets.early_checks import sample_count
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.command import declare, invoke
from extraction_assets_tests.tiny import make_faithful_sae, make_sae, make_settings


def test_a_check_of_too_few_samples_says_how_many_there_are(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    settings = make_settings(tiny_folder, saes=saes, evaluation_samples=10_000, start_sample=3)
    output = _check(monkeypatch, settings)
    found = re.search(r"corpus texts +(\d+) samples, from 3 of 3 documents", output)
    assert found
    there = int(found[1])
    assert f"error  the corpus holds {there} samples of 16 positions, but 10003 are requested" in output
    assert f"lower evaluation_samples to {there - 3} or add text" in output
    fewer = make_settings(tiny_folder, saes=saes, evaluation_samples=there - 3, start_sample=3)
    assert invoke(declare(monkeypatch, fewer), "check", "tiny").exit_code == 0


def test_a_check_that_has_no_time_to_count_says_so(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_count, "SECONDS", 0.0)
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    result = invoke(declare(monkeypatch, make_settings(tiny_folder, saes=saes)), "check", "tiny")
    assert result.exit_code == 0, result.output
    assert "samples were counted in 0 s, of 23 that are requested" in result.output


def test_samples_of_the_first_documents_alone_are_reported(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    warning = "warning  no sample comes from a document after the first 1 of 3: set corpus.shuffle"
    for corpus, is_reported in (({}, True), ({"shuffle_seed": 0}, False)):
        corpus |= {"source": str(tiny_folder / "texts"), "max_length": 16}
        settings = make_settings(tiny_folder, saes=saes, evaluation_samples=3, corpus=corpus)
        output = invoke(declare(monkeypatch, settings), "check", "tiny").output
        assert (warning in output) == is_reported


def _check(monkeypatch: pytest.MonkeyPatch, settings: ExtractionSettings) -> str:
    """Output of a check that finds an error."""
    result = invoke(declare(monkeypatch, settings), "check", settings.name)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "\nok  " not in result.output
    return result.output


def _with_sae(folder: Path, path: Path, **sae: object) -> ExtractionSettings:
    return make_settings(folder, saes={"own": {"path": str(path), "hook": "layers.1", **sae}})


def test_a_check_of_an_sae_of_another_width_reads_no_model_and_names_both(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = _check(monkeypatch, _with_sae(tiny_folder, make_sae(tmp_path / "wide", d_in=24)))
    assert "error  SAE 'own'" in output
    assert "d_in = 24, but hook 'layers.1'" in output
    assert "explained" not in output


def test_a_check_of_an_unknown_hook_is_one_sentence(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _with_sae(tiny_folder, tiny_folder / "relu", hook="layers.9")
    assert _check(monkeypatch, settings).splitlines()[-1].startswith("error  the model has no module 'layers.9'")


@pytest.mark.slow
def test_a_check_that_the_disk_is_too_small(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_500_000))
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    result = invoke(declare(monkeypatch, make_settings(tiny_folder, saes=saes)), "check", "tiny")
    assert result.exit_code == 0, result.output
    corpus = {"source": "standard-library", "max_length": 16}
    more = make_settings(tiny_folder, saes=saes, evaluation_samples=700, corpus=corpus)
    output = _check(monkeypatch, more)
    assert "where 1.5 MB are free: own/top_k_table" in output
    assert "disk   own/results" in output, "what was found before is shown"


@pytest.mark.slow
def test_what_keep_leaves_out_makes_a_full_disk_a_warning(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    keep = {"model_activations": False, "sae_features": False}
    settings = make_settings(tiny_folder, saes=saes, keep=keep, corpus={"source": "standard-library", "max_length": 64})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_100_000))
    result = invoke(declare(monkeypatch, settings), "check", "tiny")
    assert result.exit_code == 0, result.output
    assert "warning  about" in result.output
    assert "`run tiny --missing` writes nothing else" in result.output


@pytest.mark.slow
def test_a_wrong_layer_of_the_demo_is_named_with_the_right_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import extraction_assets.demo

    demo = Path(extraction_assets.demo.__file__).parent
    sae = {"path": str(demo / "sae"), "hook": "model.layers.2", "minimum_variance_explained": 0.85}
    settings = ExtractionSettings.model_validate(
        {
            "name": "wrong",
            "language_model": {"path": str(demo / "language_model")},
            "corpus": {"source": "standard-library"},
            "saes": {"layer": sae},
            "evaluation_samples": 8,
        }
    )
    output = _check(monkeypatch, settings)
    assert re.search(r"SAE 'layer' at 'model\.layers\.2' explains 0\.[67]\d* of the variance", output)
    assert re.search(r"At hook 'model\.layers\.1' it explains 0\.(8[5-9]|9)", output)
    assert not home.exists()


@pytest.mark.slow
def test_a_tokenizer_of_another_model_is_found(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaConfig, LlamaModel

    shutil.copytree(tiny_folder / "model", tmp_path / "model")
    config = LlamaConfig.from_pretrained(tmp_path / "model")
    config.vocab_size = 100
    LlamaModel(config).save_pretrained(tmp_path / "model")
    settings = make_settings(tiny_folder, language_model={"path": str(tmp_path / "model")})
    assert "but the model has embeddings of 100 tokens only" in _check(monkeypatch, settings)
    run = invoke(declare(monkeypatch, settings), "run", "tiny")
    assert run.exit_code == 1
    assert "but the model has embeddings of 100 tokens only" in run.output


def test_an_unknown_extraction_is_one_sentence(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder))
    result = invoke(module, "check", "nope")
    assert result.output == "Error: no extraction 'nope'; declared are: tiny\n"


def test_help_loads_neither_torch_nor_dagster() -> None:
    code = (
        "import sys; from extraction_assets.cli import main; import click\n"
        "try: main(['check', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'dagster', 'transformers'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit code 1 where a run would" in done.stdout
