"""Where an SAE's checkpoint is found, on this machine and in a hub's cache, and what it records."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.engine.saes.checkpoint import (
    CENTERED_REPOSITORIES,
    check_recorded,
    encode_options,
    has_rms_norm,
    read_sae,
    read_sae_record,
    sae_files,
    sae_folder,
    with_recorded,
)
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.settings import ExtractionSettings, SaeReference, SaeSettings
from extraction_assets_tests import tiny

RESIDUAL = "blocks.1.hook_resid_pre"


def model_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def layer_norm_model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "gpt2", layer_norm_epsilon=1e-5)


def recorded(model: Path, **sae: Any) -> SaeSettings:
    """The settings of one SAE, completed by what its checkpoint records."""
    values = {"language_model": {"path": str(model)}, "corpus": {"source": "x"}, "saes": {"own": sae}}
    return with_recorded(ExtractionSettings.model_validate(values), model).saes["own"]


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

    def told(**corpus: Any) -> list[str]:
        values = {"language_model": {"path": str(model)}, "corpus": {"source": "x", **corpus}, "saes": saes}
        return [text.split(":")[0] for text in check_recorded(ExtractionSettings.model_validate(values), saes)]

    assert told() == ["SAE 'without'"]  # the tiny tokenizer has a BOS token
    assert told(token_column="ids") == ["SAE 'with'"]
    configuration = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**configuration, "bos_token": None}))
    assert told() == ["SAE 'with'"]
    assert told(prepend_bos=True) == ["SAE 'without'"]


# Where it lies


def test_a_folder_inside_the_path_is_the_checkpoint(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "many" / "blocks.8.hook_resid_pre")
    sae = SaeSettings(path=str(tmp_path / "many"), subfolder="blocks.8.hook_resid_pre")
    assert sae_folder(sae.checkpoint) == folder
    assert sae_files(sae.checkpoint) == [folder / "cfg.json", folder / "sae_weights.safetensors"]
    assert read_sae(sae).latent_dim == tiny.NUM_FEATURES


def test_a_file_of_the_checkpoint_means_its_folder(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    assert sae_folder(SaeReference(path=str(folder / "sae_weights.safetensors"))) == folder
    assert sae_folder(SaeReference(path=str(tmp_path), subfolder="sae/cfg.json")) == folder


def test_files_that_change_nothing_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    (folder / "sparsity.safetensors").write_bytes(b"")
    (folder / "notes.json").write_text("{}")
    files = sae_files(SaeReference(path=str(folder)))
    assert [file.name for file in files] == ["cfg.json", "sae_weights.safetensors"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere: the folder does not exist"):
        sae_folder(SaeReference(path=str(tmp_path), subfolder="nowhere"))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of huggingface_hub, without network: snapshots lie in ``models--OWNER--NAME/snapshots/COMMIT``."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(cache: Path, repository: str, revision: str = "main") -> Path:
    """The folder of a repository's only cached snapshot."""
    own, commit = cache / ("models--" + repository.replace("/", "--")), "0123456789abcdef0123456789abcdef01234567"
    (own / "refs").mkdir(parents=True)
    (own / "refs" / revision).write_text(commit)
    return own / "snapshots" / commit


def test_an_sae_of_the_hub_is_read_from_the_cache_without_network(hub_cache: Path) -> None:
    folder = tiny.make_sae(cached(hub_cache, "jbloom/some-saes", "v1") / RESIDUAL, hook_name=RESIDUAL)
    sae = SaeSettings(path="jbloom/some-saes", subfolder=RESIDUAL, revision="v1")
    assert sae_folder(sae.checkpoint) == folder
    assert (read_sae(sae).latent_dim, read_sae_record(sae.checkpoint).hook) == (tiny.NUM_FEATURES, RESIDUAL)
    by_file = SaeSettings(path="jbloom/some-saes", subfolder=f"{RESIDUAL}/sae_weights.safetensors", revision="v1")
    assert sae_folder(by_file.checkpoint) == folder


def test_a_folder_that_the_repository_lacks_is_named(hub_cache: Path) -> None:
    tiny.make_sae(cached(hub_cache, "jbloom/some-saes") / RESIDUAL)
    with pytest.raises(FileNotFoundError, match=r"has no SAE checkpoint in its top folder: set subfolder"):
        sae_folder(SaeReference(path="jbloom/some-saes"))
    with pytest.raises(FileNotFoundError, match=r"has no SAE checkpoint in folder 'blocks.2': set subfolder"):
        sae_folder(SaeReference(path="jbloom/some-saes", subfolder="blocks.2"))


def test_a_repository_that_is_not_cached_is_named(hub_cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'nobody/nothing': there is no such folder, and the"):
        sae_folder(SaeReference(path="nobody/nothing"))


def test_only_the_files_of_one_sae_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    tiny.make_sae(tmp_path / "layer_12" / "width_16k")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    sae_folder(SaeReference(path="google/some", subfolder="layer_12/width_16k", revision="abc"))
    assert (asked["repository"], asked["revision"]) == ("google/some", "abc")
    assert {"layer_12/width_16k/params.npz", "layer_12/width_16k/cfg.json"} <= set(asked["allow_patterns"])
    assert all(pattern.startswith("layer_12/width_16k/") and "*" not in pattern for pattern in asked["allow_patterns"])


# What it records


def test_hooks_that_are_not_set_are_those_recorded(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", metadata={"hook_name": RESIDUAL, "hook_name_out": "blocks.1.hook_mlp_out"})
    sae = recorded(layer_norm_model, path=str(folder))
    assert (sae.hook, sae.hook_out, sae.hooks) == (RESIDUAL, "blocks.1.hook_mlp_out", [sae.hook, sae.hook_out])


def test_hooks_that_are_set_stay(layer_norm_model: Path, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", metadata={"hook_name": RESIDUAL})
    sae = recorded(layer_norm_model, path=str(folder), hook="h.0")
    assert sae == SaeSettings(path=str(folder), hook="h.0")


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
    assert read_sae(SaeSettings(path=str(folder))).center_input is bool(center)


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


def test_published_saes_of_gpt2_small_are_centered(hub_cache: Path, layer_norm_model: Path) -> None:
    for repository in CENTERED_REPOSITORIES:
        tiny.make_sae(cached(hub_cache, repository) / RESIDUAL, hook_point=RESIDUAL)
        sae = recorded(layer_norm_model, path=repository, subfolder=RESIDUAL)
        assert (sae.hook, sae.center_input, read_sae(sae).center_input) == (RESIDUAL, True, True)


def test_a_transcoder_is_centered_where_it_writes(layer_norm_model: Path, tmp_path: Path) -> None:
    hooks = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    folder = tiny.make_sae(tmp_path / "sae", "transcoder", **hooks, model_from_pretrained_kwargs=CENTERED)
    weights = read_sae(recorded(layer_norm_model, path=str(folder)))
    assert (weights.center_input, weights.center_target) == (False, True)
    plain = read_sae(recorded(layer_norm_model, path=str(folder), center_input=False))
    assert (plain.center_input, plain.center_target) == (False, False)


def test_what_would_give_wrong_features_is_an_error_and_the_rest_is_told(tmp_path: Path) -> None:
    z, kwargs = "blocks.1.attn.hook_z", {"fold_value_biases": True}
    wrong = tiny.make_sae(tmp_path / "wrong", hook_name=z, model_from_pretrained_kwargs=kwargs)
    fine = tiny.make_sae(
        tmp_path / "fine", hook_name=RESIDUAL, model_name="gpt2-xl", model_from_pretrained_kwargs=kwargs
    )
    values = {"language_model": {"path": "gpt2"}, "corpus": {"source": "x"}}
    saes = {"wrong": {"path": str(wrong)}, "fine": {"path": str(fine)}}
    settings = ExtractionSettings.model_validate({**values, "saes": saes})
    assert check_recorded(settings, ["fine"]) == ["SAE 'fine': it was trained on model gpt2-xl, but runs on gpt2"]
    with pytest.raises(CheckpointError, match=r"SAE 'wrong' .* with fold_value_biases"):
        check_recorded(settings, ["fine", "wrong"])


# What is asked of it


def test_options_are_named_where_they_are_set() -> None:
    assert encode_options(SaeSettings(path="x", hook="h")) == {}
    sae = SaeSettings(path="x", center_input=False, norm_scaling_factor=2, fold_decoder_norm=True)
    assert encode_options(sae) == {"center_input": False, "norm_scaling_factor": 2.0, "fold_decoder_norm": True}


def test_options_change_the_weights(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    folded = read_sae(SaeSettings(path=str(folder), fold_decoder_norm=True))
    assert torch.allclose(folded.w_dec.norm(dim=1), torch.ones(tiny.NUM_FEATURES))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_above_zero_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="norm_scaling_factor must be above 0"):
        SaeSettings(path="x", norm_scaling_factor=scale)


@pytest.mark.parametrize("subfolder", ["/etc", "../other", "a/../../b"])
def test_a_subfolder_outside_the_path_is_refused(subfolder: str) -> None:
    with pytest.raises(ValueError, match="must lie inside path"):
        SaeSettings(path="x", subfolder=subfolder)


def test_a_hook_is_not_read_before_it_is_known() -> None:
    with pytest.raises(ValueError, match="the hook of SAE x is not known before its checkpoint is read"):
        _ = SaeSettings(path="x").input_hook
