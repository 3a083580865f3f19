"""Where an SAE's checkpoint is found, on this machine and in a hub's cache, and what is asked of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from extraction_assets.engine.saes.formats import SAEWeights, read_checkpoint
from extraction_assets.engine.saes.located_checkpoint import (
    encode_options,
    read_sae,
    read_sae_record,
    sae_files,
    sae_place,
)
from extraction_assets.engine.saes.published import published_sae, registry
from extraction_assets.settings import ResolvedSae, SaeReference, SaeSettings
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.saes.formats import published_layouts, published_layouts_b
from extraction_assets_tests.engine.saes.hub_cache import cached, use_cache
from extraction_assets_tests.hub_server import HubServer

RESIDUAL = "blocks.1.hook_resid_pre"


def read(sae: SaeSettings) -> SAEWeights:
    return read_sae(ResolvedSae.model_validate({**sae.model_dump(), "hook": RESIDUAL}))


def test_a_folder_inside_the_path_is_the_checkpoint(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "many" / "blocks.8.hook_resid_pre")
    sae = SaeSettings(path=str(tmp_path / "many"), subfolder="blocks.8.hook_resid_pre")
    assert sae_place(sae.checkpoint).folder == folder
    assert sae_files(sae.checkpoint) == [folder / "cfg.json", folder / "sae_weights.safetensors"]
    assert read(sae).latent_dim == tiny.NUM_FEATURES


def test_a_file_of_the_checkpoint_means_its_folder(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    assert sae_place(SaeReference(path=str(folder / "sae_weights.safetensors"))).folder == folder
    assert sae_place(SaeReference(path=str(tmp_path), subfolder="sae/cfg.json")).folder == folder


def test_files_that_change_nothing_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    (folder / "sparsity.safetensors").write_bytes(b"")
    (folder / "notes.json").write_text("{}")
    files = sae_files(SaeReference(path=str(folder)))
    assert [file.name for file in files] == ["cfg.json", "sae_weights.safetensors"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere: the folder does not exist"):
        sae_place(SaeReference(path=str(tmp_path), subfolder="nowhere"))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_cache(tmp_path, monkeypatch)


def test_an_sae_of_the_hub_is_read_from_the_cache_without_network(hub_cache: Path) -> None:
    folder = tiny.make_sae(cached(hub_cache, "jbloom/some-saes", "v1") / RESIDUAL, hook_name=RESIDUAL)
    sae = SaeSettings(path="jbloom/some-saes", subfolder=RESIDUAL, revision="v1")
    assert sae_place(sae.checkpoint).folder == folder
    assert (
        read(sae).latent_dim,
        read_sae_record(sae.checkpoint).hook,
    ) == (tiny.NUM_FEATURES, RESIDUAL)
    by_file = SaeSettings(path="jbloom/some-saes", subfolder=f"{RESIDUAL}/sae_weights.safetensors", revision="v1")
    assert sae_place(by_file.checkpoint).folder == folder


def test_a_folder_that_the_repository_lacks_is_named(hub: HubServer, tmp_path: Path) -> None:
    tiny.make_sae(tmp_path / "saes" / RESIDUAL)
    hub.add("jbloom/some-saes", tmp_path / "saes")
    with pytest.raises(FileNotFoundError, match=r"has no SAE checkpoint in its top folder: set subfolder"):
        sae_place(SaeReference(path="jbloom/some-saes"))
    with pytest.raises(FileNotFoundError, match=r"has no SAE checkpoint in folder 'blocks.2': set subfolder"):
        sae_place(SaeReference(path="jbloom/some-saes", subfolder="blocks.2"))


def test_a_folder_that_the_cache_lacks_is_named(hub_cache: Path) -> None:
    tiny.make_sae(cached(hub_cache, "jbloom/some-saes") / RESIDUAL)
    with pytest.raises(FileNotFoundError, match=r"is set .* jbloom/some-saes --include 'blocks.2\*' --local-dir"):
        sae_place(SaeReference(path="jbloom/some-saes", subfolder="blocks.2"))


def test_a_repository_that_is_not_cached_is_named(hub_cache: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"'nobody/nothing': there is no such folder, and HF_HUB_OFFLINE is set"
    ):
        sae_place(SaeReference(path="nobody/nothing"))


def test_only_the_files_of_one_sae_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    for name in ("width_16k", "width_65k"):
        tiny.make_sae(tmp_path / "layer_12" / name)
    hub.add("google/some", tmp_path)
    place = sae_place(SaeReference(path="google/some", subfolder="layer_12/width_16k"))
    assert place.commit == hub.repositories["google/some"].branches["main"]
    assert hub.fetched == ["layer_12/width_16k/cfg.json", "layer_12/width_16k/sae_weights.safetensors"]
    assert not any("width_65k" in request.path for request in hub.requests)


@pytest.mark.parametrize("subfolder", ["layer_12/sae/", "./layer_12//sae", "layer_12/./sae/."])
def test_a_subfolder_of_the_hub_may_be_spelled_as_paths_are(hub: HubServer, tmp_path: Path, subfolder: str) -> None:
    tiny.make_sae(tmp_path / "layer_12" / "sae")
    hub.add("google/some", tmp_path)
    assert sae_place(SaeReference("google/some", subfolder)) == sae_place(SaeReference("google/some", "layer_12/sae"))


def _write_gpt2(root: Path, inside: str) -> Path:
    return tiny.make_sae(root / inside, hook_name=inside)


@pytest.mark.parametrize(
    ("release", "sae_id", "write"),
    [
        ("gpt2-small-res-jb", RESIDUAL, _write_gpt2),
        ("gemma-scope-2b-pt-res", "layer_10/width_16k/average_l0_77", published_layouts.write_gemma_scope),
        ("gemma-scope-2-4b-pt-res", "layer_17_width_16k_l0_medium", published_layouts.write_gemma_scope_2),
    ],
)
def test_an_sae_by_name_comes_from_its_repository_with_its_files_alone(
    hub: HubServer, tmp_path: Path, release: str, sae_id: str, write: Callable[[Path, str], Path]
) -> None:
    published = published_sae(release, sae_id)
    write(tmp_path / "saes", published.path)
    write(tmp_path / "saes", published.path.replace("1", "2", 1))
    hub.add(published.repository, tmp_path / "saes")
    place = sae_place(SaeReference(release=release, sae_id=sae_id))
    assert (place.published, place.commit) == (published, hub.repositories[published.repository].branches["main"])
    assert read_checkpoint(place).latent_dim > 0
    names = [file.name for file in (tmp_path / "saes" / published.path).iterdir()]
    assert hub.fetched == sorted(f"{published.path}/{name}" for name in names)


def test_an_sae_that_is_one_file_comes_alone(hub: HubServer, tmp_path: Path) -> None:
    release = next(one for one in registry().releases.values() if one.loader == "qwen_scope")
    first, second = (release.sae(sae_id) for sae_id in list(release.saes)[:2])
    for one in (first, second):
        published_layouts_b.write_qwen_scope(tmp_path / "saes", one.path)
    hub.add(first.repository, tmp_path / "saes")
    assert read_checkpoint(sae_place(SaeReference(release=first.release, sae_id=first.sae_id))).latent_dim > 0
    assert hub.fetched == [first.path]


# What is asked of it


def test_options_are_named_where_they_are_set() -> None:
    assert encode_options(SaeSettings(path="x", hook="h")) == {}
    sae = SaeSettings(path="x", center_input=False, norm_scaling_factor=2, fold_decoder_norm=True)
    assert encode_options(sae) == {"center_input": False, "norm_scaling_factor": 2.0, "fold_decoder_norm": True}


def test_options_change_the_weights(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    folded = read(SaeSettings(path=str(folder), fold_decoder_norm=True))
    assert torch.allclose(folded.w_dec.norm(dim=1), torch.ones(tiny.NUM_FEATURES))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_not_above_zero_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="norm_scaling_factor must be above 0"):
        SaeSettings(path="x", norm_scaling_factor=scale)


@pytest.mark.parametrize("subfolder", ["/etc", "../other", "a/../../b"])
def test_a_subfolder_outside_the_path_is_refused(subfolder: str) -> None:
    with pytest.raises(ValueError, match="must lie inside path"):
        SaeSettings(path="x", subfolder=subfolder)
