"""Texts in memory: the numbers of a run of Dagster, from a folder that goes away."""

import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from extraction_assets import extract
from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.models.forward.hooked import LanguageModel
from extraction_assets.engine.models.hooks.hook import HookError
from extraction_assets.engine.preflight.sanity import SanityError
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.python_api.errors import ClosedError, NotComputedError
from extraction_assets.python_api.extracted import ExtractedResults
from extraction_assets.python_api.extraction import ExtractionResults
from extraction_assets.python_api.results import Results
from extraction_assets_tests import tiny
from extraction_assets_tests.processes import run_code
from extraction_assets_tests.project import Project

LOOSE = {"saes": {"sae": {"minimum_variance_explained": -1e9}}}
"""A random SAE reconstructs nothing."""
SETTINGS: dict[str, Any] = {**LOOSE, "evaluation_samples": 23, "chunk_size": 8}


def extracted(folder: Path, **changes: Any) -> ExtractedResults:
    """The tiny texts through the tiny model and its SAE ``relu``."""
    options: dict[str, Any] = {"hook": "layers.0", "max_length": 16, "top_k_examples": 5, "settings": SETTINGS}
    given = {"model": folder / "model", "sae": folder / "relu", "texts": tiny.TEXTS, "show_progress": False}
    return extract(**{**given, **options, **changes})


@pytest.fixture(scope="module")
def memory(tiny_folder: Path) -> Iterator[ExtractedResults]:
    with extracted(tiny_folder) as found:
        yield found


def same(one: ExtractionResults, other: ExtractionResults) -> None:
    """Raises AssertionError if two results differ in a bit."""
    pd.testing.assert_frame_equal(one.features(), other.features(), check_exact=True)
    for index in range(len(one.features())):
        for here, there in ((one.examples(index), other.examples(index)), (one.draws(index), other.draws(index))):
            assert [*map(list, here["values"])] == [*map(list, there["values"])]
            plain = [frame.drop(columns="values").reset_index().to_numpy().tolist() for frame in (here, there)]
            assert plain[0] == plain[1]
    assert (one.activations(chunk=1) != other.activations(chunk=1)).nnz == 0


def test_numbers_are_those_of_a_run_of_dagster(memory: ExtractedResults, results: Results) -> None:
    same(memory, results["tiny/relu"])


def test_relations_are_those_of_the_asset(memory: ExtractedResults, project: Project, results: Results) -> None:
    project.relations_and_directions()
    relu = results["tiny/relu"]
    for index in (3, 6, 12):
        for call in (ExtractionResults.neighbours, ExtractionResults.tokens):
            pd.testing.assert_frame_equal(call(memory, index), call(relu, index), check_exact=True)
        assert memory.flags(index) == relu.flags(index)
    assert memory.search("fox").index.tolist() == relu.search("fox").index.tolist()


def test_a_loaded_model_gives_the_same_numbers(tiny_folder: Path, memory: ExtractedResults) -> None:
    model = AutoModel.from_pretrained(tiny_folder / "model", dtype=torch.float32)
    with extracted(tiny_folder, model=model) as found:
        same(found, memory)


def test_a_loaded_sae_may_not_say_its_hook(tiny_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="the loaded SAE does not say which hook it reads"):
        extracted(tiny_folder, sae=load_sae(tiny_folder / "relu"), hook=None)


def test_a_loaded_model_with_a_head_gives_the_same_numbers(tiny_folder: Path, memory: ExtractedResults) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_folder / "model", dtype=torch.float32)
    with extracted(tiny_folder, model=model, hook="model.layers.0") as found:
        same(found, memory)


def test_a_loaded_model_stays_as_it_was(tiny_folder: Path) -> None:
    model = LlamaModel.from_pretrained(tiny_folder / "model", dtype=torch.float32).train()
    model(torch.zeros(1, 3, dtype=torch.int64), output_hidden_states=True)  # transformers leaves hooks of its own
    before, hooks = model.config.to_dict(), hooks_of(model)
    extracted(tiny_folder, model=model).close()
    assert all(module.training for module in model.modules())
    assert model.config.to_dict() == before
    assert hooks_of(model) == hooks


def hooks_of(model: LlamaModel) -> list[tuple[int, int]]:
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


def test_a_model_that_comes_from_nowhere_needs_a_tokenizer(tiny_folder: Path, memory: ExtractedResults) -> None:
    model = AutoModel.from_pretrained(tiny_folder / "model", dtype=torch.float32)
    model.config._name_or_path = ""
    with pytest.raises(ValueError, match=r"the loaded model's tokenizer is not known .*: give it, tokenizer="):
        extracted(tiny_folder, model=model)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_folder / "model")
    with extracted(tiny_folder, model=model, tokenizer=tokenizer) as found:
        same(found, memory)


def test_a_loaded_sae_gives_the_same_numbers(tiny_folder: Path, memory: ExtractedResults) -> None:
    sae = load_sae(tiny_folder / "relu")
    with extracted(tiny_folder, sae=sae) as found:
        same(found, memory)
        assert found.decoder(3).tolist() == memory.decoder(3).tolist()


@pytest.mark.slow
def test_an_sae_of_sae_lens_gives_the_same_numbers(tiny_folder: Path, memory: ExtractedResults) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    config = sae_lens.StandardSAEConfig(d_in=tiny.D_MODEL, d_sae=tiny.NUM_FEATURES, apply_b_dec_to_input=True)
    sae = sae_lens.StandardSAE(config)
    sae.load_state_dict(load_file(tiny_folder / "relu" / "sae_weights.safetensors"))
    with extracted(tiny_folder, sae=sae) as found:
        same(found, memory)


def test_the_hook_is_by_default_what_the_checkpoint_records(tiny_folder: Path, tmp_path: Path) -> None:
    sae = tiny.make_faithful_sae(tmp_path / "faithful", hook="blocks.1.hook_resid_post")
    with extracted(tiny_folder, sae=sae, hook=None, settings=None) as found:
        assert found.description()["hook"] == "blocks.1.hook_resid_post"


def test_texts_are_documents_by_their_numbers(tiny_folder: Path) -> None:
    with extracted(tiny_folder, texts=["the fox", "the dog"], settings=LOOSE) as found:
        documents = {name for index in (3, 6, 9) for name in found.examples(index)["document_id"]}
    assert documents <= {"0", "1"}
    assert documents


def test_settings_are_those_of_a_yaml_file(tiny_folder: Path) -> None:
    changes = {"corpus": {"packing": "concatenated"}, "statistics": "basic", **LOOSE}
    with extracted(tiny_folder, settings=changes) as found:
        described = found.description()["settings"]
        assert (described["corpus"]["packing"], described["corpus"]["max_length"]) == ("concatenated", 16)
        with pytest.raises(NotComputedError, match="are not computed: draws are made with"):
            found.draws(3)


def test_a_logit_lens_is_computed_where_it_is_wanted(memory: ExtractedResults, tiny_folder: Path) -> None:
    with pytest.raises(NotComputedError):
        memory.neighbours(3, by="decoder")
    with extracted(tiny_folder, directions=True) as found:
        assert len(found.neighbours(3, by="decoder")) == 20


def test_files_go_away_on_close(tiny_folder: Path) -> None:
    found = extracted(tiny_folder)
    folder = found._source.store.root
    assert (folder / "results.sqlite").is_file()
    found.close()
    assert not folder.exists()
    with pytest.raises(ClosedError):
        found.features()


def test_files_go_away_with_the_object(tiny_folder: Path) -> None:
    found = extracted(tiny_folder)
    folder = found._source.store.root
    del found
    gc.collect()
    assert not folder.exists()


def test_files_go_away_after_an_error(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(HookError):
        extracted(tiny_folder, hook="layers.7")
    assert [*tmp_path.glob("extraction-assets-*")] == []


def test_the_model_is_not_kept(tiny_folder: Path) -> None:
    with extracted(tiny_folder):
        gc.collect()
        assert [one for one in gc.get_objects() if isinstance(one, LanguageModel)] == []


def test_progress_is_shown(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extracted(tiny_folder, show_progress=True).close()
    assert "extraction: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one text", TypeError, "give a list of texts"),
        ([], CorpusError, "there is no text"),
        (["a", 3], TypeError, "text 1 is a int, not a str"),
        (["a", "\ud800"], CorpusError, "text 1 is not Unicode"),
    ],
)
def test_other_things_than_texts_are_refused(
    tiny_folder: Path, texts: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        extracted(tiny_folder, texts=texts)


def test_texts_without_a_token_are_refused(tiny_folder: Path) -> None:
    settings = {**LOOSE, "corpus": {"prepend_bos": False}}
    with pytest.raises(CorpusError, match="the texts give 0 samples"):
        extracted(tiny_folder, texts=["", ""], settings=settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "banana"}, "device is 'banana'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_length": 0}, "max_length"),
        ({"name": "a b"}, "name 'a b' may hold letters"),
        ({"settings": {"evaluation_sample": 3}}, "evaluation_sample has no part .*; settings has .*evaluation_samples"),
        ({"settings": {"name": "other"}}, "name is a parameter of extract itself"),
        ({"settings": {"corpus": {"shuffle_seed": 3}}}, "corpus.shuffle_seed has no part"),
        ({"settings": {"saes": {"relu": {}}}}, "saes.relu has no part"),
        ({"settings": {"saes": {"sae": {"maximum_l1": 3}}}}, "maximum_l1"),
        ({"settings": {"corpus": {"packing": "tight"}}}, "corpus.packing"),
    ],
)
def test_wrong_options_get_one_sentence(tiny_folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        extracted(tiny_folder, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loaded", [False, True])
def test_an_sae_of_another_width_is_refused(tiny_folder: Path, tmp_path: Path, loaded: bool) -> None:
    folder = tiny.make_sae(tmp_path / "wide", d_in=24)
    with pytest.raises(CheckpointError, match="they do not belong together"):
        extracted(tiny_folder, sae=load_sae(folder) if loaded else folder)


def test_an_sae_at_the_wrong_place_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(SanityError, match="variance"):
        extracted(tiny_folder, settings={"chunk_size": 8})


@pytest.mark.parametrize(("name", "given"), [("model", 3), ("sae", 3)])
def test_what_is_no_model_and_no_sae_is_refused(tiny_folder: Path, name: str, given: int) -> None:
    with pytest.raises(TypeError, match=f"{name} is a int: give a folder"):
        extracted(tiny_folder, **{name: given})


def test_a_folder_that_is_not_there_is_named(tiny_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*/nowhere"):
        extracted(tiny_folder, model=tiny_folder / "nowhere")


def test_directions_need_files(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="give both by their names"):
        extracted(tiny_folder, sae=load_sae(tiny_folder / "relu"), directions=True)


def test_warnings_reach_the_log(tiny_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {**LOOSE, "corpus": {"exclude_outlier_norms": 10.0}}
    with caplog.at_level(logging.WARNING), extracted(tiny_folder, settings=settings) as found:
        assert "tokens and neighbours are not counted" in caplog.text
        with pytest.raises(NotComputedError, match="are not counted with exclude_outlier_norms"):
            found.neighbours(3)


def test_directions_that_were_not_asked_for_are_said_with_how_to_ask(memory: ExtractedResults) -> None:
    with pytest.raises(NotComputedError, match=r"directions of texts/sae are not computed: call extract\(..., dir"):
        memory.logits(3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 8}, r"settings: batch_size is a parameter of extract itself: extract\(.*, batch_size=...\)"),
        (
            {"corpus": {"shards": 2}},
            "settings: corpus.shards has no part .* extract itself takes hook, tokenizer, name",
        ),
    ],
)
def test_an_unknown_setting_is_refused_with_what_extract_takes(
    tiny_folder: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        extracted(tiny_folder, settings=settings)


@pytest.mark.slow
def test_dagster_is_not_loaded(tiny_folder: Path) -> None:
    code = f"""
import sys
from extraction_assets_tests.processes import forget
forget("dagster", "extraction_assets")
from extraction_assets import extract
folder = {str(tiny_folder)!r}
loose = {LOOSE!r}
with extract(folder + "/model", folder + "/relu", ["the fox"], hook="layers.0", max_length=16, settings=loose) as found:
    found.features(), found.examples(0), found.search("fox"), found.activations(3)
assert not [name for name in sys.modules if name.split(".")[0] == "dagster"]
"""
    done = run_code(code)
    assert done.returncode == 0, done.stderr
