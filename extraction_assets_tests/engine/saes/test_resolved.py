"""What the checkpoints of an extraction say where its settings leave something open."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from extraction_assets.engine.findings import refuse
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.located_checkpoint import read_sae
from extraction_assets.engine.saes.published import registry
from extraction_assets.engine.saes.resolved import (
    ResolvedExtraction,
    examine_recorded,
    has_rms_norm,
    resolve_extraction,
)
from extraction_assets.settings import ExtractionSettings, ResolvedSae, SaeSettings
from extraction_assets_tests import tiny
from extraction_assets_tests.chats import CHATML, LLAMA_3, make_chat_model
from extraction_assets_tests.engine.saes.hub_cache import cached, use_cache

RESIDUAL = "blocks.1.hook_resid_pre"


def model_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def layer_norm_model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "gpt2", layer_norm_epsilon=1e-5)


def resolved(model: Path, saes: dict[str, dict[str, Any]], **corpus: Any) -> ResolvedExtraction:
    values = {"language_model": {"path": str(model)}, "corpus": {"source": "x", **corpus}, "saes": saes}
    return resolve_extraction(ExtractionSettings.model_validate(values))


def recorded(model: Path, **sae: Any) -> ResolvedSae:
    """The settings of one SAE, completed by what its checkpoint records."""
    return resolved(model, {"own": sae}).saes["own"]


def test_bos_is_compared_as_samples_have_it(tmp_path: Path) -> None:
    """Text of a tokenizer without BOS gets none, and tokens that are there already stay as they are."""
    model = tiny.make_language_model(tmp_path / "model")
    saes = {
        name: {
            "path": str(tiny.make_sae(tmp_path / name, metadata={"prepend_bos": name == "with"})),
            "hook": "layers.0",
        }
        for name in ("with", "without")
    }

    def differing(**corpus: Any) -> list[str]:
        return [one.message.split(":")[0] for one in examine_recorded(resolved(model, saes, **corpus), saes)]

    assert differing() == ["SAE 'without'"]  # the tiny tokenizer has a BOS token
    assert differing(token_column="ids") == ["SAE 'with'"]
    configuration = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**configuration, "bos_token": None}))
    assert differing() == ["SAE 'with'"]
    assert differing(prepend_bos=True) == ["SAE 'without'"]


def test_a_bos_that_the_chat_template_writes_is_one_that_samples_have(tmp_path: Path) -> None:
    made = tiny.make_sae(tmp_path / "sae", metadata={"prepend_bos": True})
    saes = {"sae": {"path": str(made), "hook": "layers.0"}}

    def differs(template: str) -> bool:
        model = make_chat_model(tmp_path / f"model-{len(template)}", template)
        chat = resolved(model, saes, messages_column="messages", prepend_bos=False)
        return bool(examine_recorded(chat, saes))

    assert not differs(LLAMA_3)
    assert differs(CHATML)


# Where it lies


def test_hooks_that_are_not_set_are_those_recorded(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", metadata={"hook_name": RESIDUAL, "hook_name_out": "blocks.1.hook_mlp_out"})
    sae = recorded(layer_norm_model, path=str(folder))
    assert (sae.hook, sae.hook_out, sae.hooks) == (RESIDUAL, "blocks.1.hook_mlp_out", [sae.hook, sae.hook_out])


def test_hooks_that_are_set_stay(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", metadata={"hook_name": RESIDUAL})
    sae = recorded(layer_norm_model, path=str(folder), hook="h.0")
    assert sae == ResolvedSae(path=str(folder), hook="h.0")


def test_a_hook_that_nobody_names_is_asked_for(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    with pytest.raises(CheckpointError, match=r"SAE 'own' .* which hook it reads: set saes.own.hook, such as"):
        recorded(layer_norm_model, path=str(folder))


def test_a_transcoder_needs_a_hook_to_give(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", "transcoder", hook_name=RESIDUAL)
    with pytest.raises(CheckpointError, match=r"which hook it gives the activations of: set saes.own.hook_out"):
        recorded(layer_norm_model, path=str(folder))
    assert recorded(layer_norm_model, path=str(folder), hook_out="h.1.mlp").hook_out == "h.1.mlp"


CENTERED = {"center_writing_weights": True}


@pytest.mark.parametrize(
    ("hook", "kwargs", "center"),
    [
        (RESIDUAL, CENTERED, True),
        ("blocks.1.hook_resid_post", CENTERED, True),
        ("blocks.1.hook_mlp_out", CENTERED, True),
        ("blocks.1.hook_attn_out", CENTERED, True),
        ("hook_embed", CENTERED, True),
        ("blocks.1.attn.hook_z", CENTERED, None),
        ("blocks.1.ln2.hook_normalized", CENTERED, None),
        (RESIDUAL, {"center_writing_weights": False}, None),
        (RESIDUAL, {}, None),
        (RESIDUAL, None, None),
    ],
)
def test_inputs_are_centered_where_the_checkpoint_says_so(
    hook: str, kwargs: Any, center: bool | None, layer_norm_model: Path, tmp_path: Path
) -> None:
    metadata = {"hook_name": hook, "model_from_pretrained_kwargs": kwargs}
    folder = tiny.make_sae(tmp_path / "sae", metadata=metadata)
    assert recorded(layer_norm_model, path=str(folder)).center_input is center
    assert read_sae(ResolvedSae(path=str(folder), hook=hook)).center_input is bool(center)


def test_a_model_with_rms_norm_is_not_centered(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", hook_name=RESIDUAL, model_from_pretrained_kwargs=CENTERED)
    for config in ({"rms_norm_eps": 1e-6}, {"text_config": {"rms_norm_eps": 1e-6}}):
        model = model_folder(tmp_path / "model", **config)
        assert has_rms_norm(model)
        assert recorded(model, path=str(folder)).center_input is False


@pytest.mark.parametrize("center", [True, False])
def test_what_is_set_about_centering_stays(center: bool, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", rms_norm_eps=1e-6)
    folder = tiny.make_sae(tmp_path / "sae", hook_name=RESIDUAL, model_from_pretrained_kwargs=CENTERED)
    sae = recorded(model, path=str(folder), center_input=center)
    assert sae.center_input is read_sae(sae).center_input is center


def test_a_transcoder_is_centered_where_it_writes(layer_norm_model: Path, tmp_path: Path) -> None:
    hooks = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    folder = tiny.make_sae(tmp_path / "sae", "transcoder", **hooks, model_from_pretrained_kwargs=CENTERED)
    weights = read_sae(recorded(layer_norm_model, path=str(folder)))
    assert (weights.center_input, weights.center_target) == (False, True)
    plain = read_sae(recorded(layer_norm_model, path=str(folder), center_input=False))
    assert (plain.center_input, plain.center_target) == (False, False)


def test_what_would_give_wrong_features_is_an_error_and_the_rest_a_sentence(
    layer_norm_model: Path, tmp_path: Path
) -> None:
    z, kwargs = "blocks.1.attn.hook_z", {"fold_value_biases": True}
    wrong = tiny.make_sae(tmp_path / "wrong", hook_name=z, model_from_pretrained_kwargs=kwargs)
    fine = tiny.make_sae(
        tmp_path / "fine", hook_name=RESIDUAL, model_name="gpt2-xl", model_from_pretrained_kwargs=kwargs
    )
    saes = {"wrong": {"path": str(wrong)}, "fine": {"path": str(fine)}}
    extraction = resolved(layer_norm_model, saes)
    difference = f"SAE 'fine': it was trained on model gpt2-xl, but runs on {layer_norm_model}"
    assert [one[:2] for one in examine_recorded(extraction, ["fine"])] == [("warning", difference)]
    with pytest.raises(CheckpointError, match=r"SAE 'wrong' .* with fold_value_biases"):
        refuse(examine_recorded(extraction, ["fine", "wrong"]))


def test_published_saes_of_gpt2_small_are_centered(
    layer_norm_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_cache = use_cache(tmp_path, monkeypatch)
    centered = [
        one.repository for one in registry().releases.values() if "model_from_pretrained_kwargs" in one.overrides
    ]
    assert len(centered) == 3
    for repository in centered:
        tiny.make_sae(cached(hub_cache, repository) / RESIDUAL, hook_point=RESIDUAL)
        sae = recorded(layer_norm_model, path=repository, subfolder=RESIDUAL)
        assert (sae.hook, sae.center_input, read_sae(sae).center_input) == (RESIDUAL, True, True)


# Declared and resolved settings are two things


def test_resolving_changes_no_settings(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", hook_name=RESIDUAL, model_from_pretrained_kwargs=CENTERED)
    extraction = resolved(layer_norm_model, {"own": {"path": str(folder)}})
    assert extraction.declared.saes == {"own": SaeSettings(path=str(folder))}
    assert (extraction.declared.declared_hooks, extraction.hooks) == ([], [RESIDUAL])


def test_results_record_what_the_checkpoints_say(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", hook_name=RESIDUAL, model_from_pretrained_kwargs=CENTERED)
    extraction = resolved(layer_norm_model, {"own": {"path": str(folder), "maximum_l0": 3}})
    declared = extraction.declared.model_dump(mode="json")
    assert declared["saes"]["own"]["hook"] is None
    declared["saes"]["own"] |= {"hook": RESIDUAL, "center_input": True}
    assert json.dumps(extraction.dump()) == json.dumps(declared)


def test_no_sae_is_resolved_without_a_hook() -> None:
    with pytest.raises(ValidationError, match="hook"):
        ResolvedSae.model_validate(SaeSettings(path="x").model_dump())
