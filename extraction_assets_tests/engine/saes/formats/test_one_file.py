"""SAEs that are one file among others of their repository, as published, beside SAELens's loaders of them."""

from pathlib import Path

import pytest

from extraction_assets.engine.saes.formats import (
    FORMATS,
    CheckpointError,
    SaePlace,
    checkpoint_facts,
    checkpoint_files,
    files_on_hub,
    format_of_loader,
    goodfire,
    place_of,
    qwen_scope,
    read_checkpoint,
)
from extraction_assets.engine.saes.located_checkpoint import read_sae, sae_facts
from extraction_assets.engine.saes.published import PublishedSae, all_saes, published_sae
from extraction_assets.settings import ResolvedSae, SaeReference
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    assert_same_sae,
    read_by_name,
    read_by_sae_lens,
)
from extraction_assets_tests.engine.saes.formats.published_layouts_b import (
    write_deepseek_r1,
    write_goodfire,
    write_kissane,
    write_qwen_scope,
)

QWEN = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
GOODFIRE = {
    "goodfire-llama-3.1-8b-instruct": ("layer_19", "blocks.19.hook_resid_post"),
    "goodfire-llama-3.3-70b-instruct": ("layer_50", "blocks.50.hook_resid_post"),
}


@pytest.mark.parametrize("release", ["qwen-scope-3-1.7b-base-w32k-l50", "qwen-scope-3.5-35b-a3b-base-w128k-l100"])
def test_qwen_scope_encodes_and_decodes_as_sae_lens(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = published_sae(release, "layer12")
    write_qwen_scope(tmp_path, sae.path)
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae, d_in=D_IN, d_sae=256)
    assert_same_sae(ours, theirs)
    assert ours.k == sae.l0
    assert (ours.record.hook, ours.record.model_name) == ("model.layers.12", sae.model)


@pytest.mark.parametrize("folder", [QWEN, f"models--Qwen--{QWEN}/snapshots/0f3c", f"Qwen/{QWEN}"])
def test_qwens_k_is_known_by_the_name_of_a_folder_on_the_way(folder: str, tmp_path: Path) -> None:
    """Of a copy by ``hf download --local-dir``, and in the hub's cache."""
    write_qwen_scope(tmp_path / folder, "layer3.sae.pt")
    place = place_of(tmp_path / folder / "layer3.sae.pt")
    assert checkpoint_facts(place) == {"k": 50}
    weights = read_checkpoint(place)
    assert (weights.k, weights.record.model_name) == (50, "Qwen/Qwen3-1.7B-Base")


def test_qwens_k_is_known_by_release_and_id_of_any_folder(tmp_path: Path) -> None:
    write_qwen_scope(tmp_path, "layer3.sae.pt")
    named = SaeReference(path=str(tmp_path), release="qwen-scope-3.5-27b-w80k-l100", sae_id="layer3")
    assert sae_facts(named) == {"k": 100}


def test_qwens_k_that_no_name_says_is_refused(tmp_path: Path) -> None:
    write_qwen_scope(tmp_path, "layer3.sae.pt")
    with pytest.raises(CheckpointError, match=r"layer3.sae.pt: the number k .* set release and sae_id"):
        read_checkpoint(place_of(tmp_path / "layer3.sae.pt"))


def test_a_layer_of_qwen_scope_is_named_by_subfolder(tmp_path: Path) -> None:
    write_qwen_scope(tmp_path / QWEN, "layer3.sae.pt")
    settings = ResolvedSae(path=str(tmp_path / QWEN), subfolder="layer3.sae.pt", hook="model.layers.3")
    assert read_sae(settings).k == 50


def test_a_folder_of_several_layers_asks_for_one_of_them(tmp_path: Path) -> None:
    for layer in range(5):
        write_qwen_scope(tmp_path / QWEN, f"layer{layer}.sae.pt")
    with pytest.raises(CheckpointError, match=r"5 SAE.s. of one file each \('layer0.sae.pt', .*…\): set subfolder"):
        read_checkpoint(tmp_path / QWEN)


@pytest.mark.parametrize("release", GOODFIRE)
def test_goodfire_encodes_and_decodes_as_sae_lens(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae_id, hook = GOODFIRE[release]
    sae = published_sae(release, sae_id)
    write_goodfire(tmp_path, sae.path)
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae, d_in=D_IN, d_sae=D_SAE)
    assert_same_sae(ours, theirs)
    assert (ours.record.hook, ours.record.model_name) == (hook, sae.model)


def test_qresearchs_encodes_and_decodes_as_sae_lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = published_sae("deepseek-r1-distill-llama-8b-qresearch", "blocks.19.hook_resid_post")
    write_deepseek_r1(tmp_path, sae.path)
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae, d_in=D_IN, d_sae=D_SAE)
    assert_same_sae(ours, theirs.float())
    assert (ours.record.hook, ours.record.model_name) == ("blocks.19.hook_resid_post", sae.model)


def test_goodfires_model_and_layer_are_known_by_the_files_name(tmp_path: Path) -> None:
    write_deepseek_r1(tmp_path, "Llama-3.2-1B-Instruct-SAE-l9.pt")
    record = read_checkpoint(place_of(tmp_path / "Llama-3.2-1B-Instruct-SAE-l9.pt")).record
    assert (record.hook, record.model_name) == ("blocks.9.hook_resid_post", "Llama-3.2-1B-Instruct")


@pytest.mark.parametrize("sae_id", ["blocks.0.hook_z", "blocks.11.hook_z"])
def test_hook_z_encodes_and_decodes_as_sae_lens(sae_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = published_sae("gpt2-small-hook-z-kk", sae_id)
    write_kissane(tmp_path, sae.path, act_name=sae_id.replace(".hook", ".attn.hook"))
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert theirs.cfg.reshape_activations == "hook_z"
    assert_same_sae(ours, theirs)
    record, metadata = ours.record, theirs.cfg.metadata
    assert (record.hook, record.model_name) == (metadata.hook_name, metadata.model_name)
    assert (record.prepend_bos, record.context_size) == (metadata.prepend_bos, metadata.context_size)


def test_another_hook_of_ckkissanes_is_read_too(tmp_path: Path) -> None:
    write_kissane(tmp_path, "gelu-2l_L1.pt", act_name="blocks.1.hook_attn_out", head=None)
    weights = read_checkpoint(place_of(tmp_path / "gelu-2l_L1.pt"))
    assert (weights.record.hook, weights.apply_b_dec_to_input) == ("blocks.1.hook_attn_out", True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": 3}, "x_cfg.json: head = 3 is not supported: it reads all heads side by side"),
        ({"concat_heads": False}, "concat_heads = false is not supported"),
        ({"act_size": 17}, "x_cfg.json says act_size = 17, but W_enc of x.pt has 16"),
        ({"dict_size": "48"}, "dict_size must be a whole number, got '48'"),
    ],
)
def test_what_is_not_understood_of_ckkissanes_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_kissane(tmp_path, "x.pt", **changes)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(place_of(tmp_path / "x.pt"))


def test_only_the_files_of_the_sae_are_asked_from_the_hub() -> None:
    assert files_on_hub("layer3.sae.pt", "qwen_scope") == ["layer3.sae.pt"]
    assert files_on_hub("Llama-3.1-8B-Instruct-SAE-l19.pth", "goodfire") == ["Llama-3.1-8B-Instruct-SAE-l19.pth"]
    assert files_on_hub("a_L0_v9.pt", "connor_rob_hook_z") == ["a_L0_v9.pt", "a_L0_v9_cfg.json"]
    assert files_on_hub("L/checkpoint", "llama_scope") == [
        "L/checkpoint/hyperparams.json",
        "L/checkpoint/checkpoints/final.safetensors",
    ]
    assert files_on_hub("layer_3.safetensors", "mwhanna_transcoder") == [
        "layer_3.safetensors",
        "config.yaml",
        "wandb-config.yaml",
        "wanb-config.yaml",
    ]


def test_the_files_of_one_layer_are_its_own(tmp_path: Path) -> None:
    for layer in range(3):
        write_qwen_scope(tmp_path / QWEN, f"layer{layer}.sae.pt")
    assert checkpoint_files(place_of(tmp_path / QWEN / "layer1.sae.pt")) == [tmp_path / QWEN / "layer1.sae.pt"]


QWEN_SCOPE = [sae for sae in all_saes() if sae.loader == "qwen_scope"]
ONE_FILE = [sae for sae in all_saes() if sae.loader in {"goodfire", "deepseek_r1"}]


def test_the_names_of_every_qwen_scope_sae_say_what_the_registry_does() -> None:
    """Its l0 is k."""
    assert len(QWEN_SCOPE) == 544
    for sae in QWEN_SCOPE:
        place = SaePlace(Path(sae.repository), sae.path, sae.repository, sae.path)
        record, facts = qwen_scope.record(place), qwen_scope.facts(place)
        assert (record.model_name, record.hook, facts["k"]) == (sae.model, f"model.layers.{sae.sae_id[5:]}", sae.l0)


@pytest.mark.parametrize("sae", ONE_FILE, ids=lambda sae: sae.path)
def test_the_files_names_say_the_model_that_the_registry_does(sae: PublishedSae) -> None:
    record = goodfire.record(SaePlace(Path("local"), sae.path))
    assert sae.model.endswith(f"/{record.model_name}")


LOADERS = {"llama_scope": 192, "llama_scope_r1_distill": 96, "connor_rob_hook_z": 12, "mwhanna_transcoder": 208}


@pytest.mark.parametrize("loader", LOADERS)
def test_every_published_sae_has_files_of_its_format(loader: str) -> None:
    saes = [sae for sae in all_saes() if sae.loader == loader]
    assert len(saes) == LOADERS[loader]
    is_folder = loader.startswith("llama_scope")
    for sae in saes:
        required = FORMATS[str(format_of_loader(loader))].files(None if is_folder else sae.path).required
        assert set(files_on_hub(sae.path, loader)) >= {f"{sae.path}/{name}" if is_folder else name for name in required}
        assert required
