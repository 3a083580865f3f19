"""SAEs by release and id: from the hub, from a copy of its repository or of a part, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.saes.located_checkpoint import sae_facts, sae_files, sae_place
from extraction_assets.engine.saes.published import UnknownSae
from extraction_assets.settings import SaeReference
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.saes.hub_cache import cached, use_cache

REPOSITORY = "chanind/gemma-2-2b-batch-topk-matryoshka-saes-w-32k-l0-40"
INSIDE = "standard/blocks.3.hook_resid_post"
NAMES: dict[str, Any] = {"release": "gemma-2-2b-res-matryoshka-dc", "sae_id": "blocks.3.hook_resid_post"}


def named(path: Path | None = None) -> SaeReference:
    return SaeReference(path=None if path is None else str(path), **NAMES)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What ``hf download REPOSITORY --local-dir`` makes, with two SAEs."""
    folder = tmp_path / "copy"
    tiny.make_sae(folder / INSIDE)
    tiny.make_sae(folder / "standard" / "blocks.4.hook_resid_post", seed=5)
    return folder


def test_an_sae_of_the_hub_is_found_by_its_names(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cached(use_cache(tmp_path, monkeypatch), REPOSITORY)
    shutil.copytree(copy, cache, dirs_exist_ok=True)
    place = sae_place(named())
    assert place.folder == cache / INSIDE
    assert (place.repository, place.inside) == (REPOSITORY, INSIDE)
    assert place == sae_place(SaeReference(REPOSITORY, INSIDE))
    assert place == sae_place(SaeReference(REPOSITORY, f"{INSIDE}/cfg.json")), "a file of it means it"


@pytest.mark.parametrize("inside", ["", "standard", INSIDE, f"{INSIDE}/cfg.json"])
def test_a_copy_of_the_repository_or_of_a_part_is_that_sae(copy: Path, inside: str) -> None:
    place = sae_place(named(copy / inside))
    assert place.folder == copy / INSIDE
    assert (place.repository, place.inside) == (REPOSITORY, INSIDE)
    assert place.published is not None


def test_a_folder_of_another_name_with_its_files_is_that_sae(copy: Path, tmp_path: Path) -> None:
    mine = (copy / INSIDE).rename(tmp_path / "mine")
    assert sae_place(named(mine)).folder == mine
    assert sae_place(named(mine)).inside == INSIDE


def test_a_folder_of_another_name_that_is_another_sae_by_its_files_is_refused(tmp_path: Path) -> None:
    mine = tiny.make_sae(tmp_path / "mine", hook_name="blocks.4.hook_resid_post")
    said = r"mine is another SAE than .*: its files say that it reads blocks\.4\..*, and that one reads blocks\.3\.hook"
    with pytest.raises(FileNotFoundError, match=said):
        sae_place(named(mine))


def test_files_and_facts_are_equal_however_the_sae_is_named(copy: Path) -> None:
    ways = [named(copy), named(copy / INSIDE), SaeReference(str(copy), INSIDE), SaeReference(str(copy / INSIDE))]
    assert len({(tuple(sae_files(way)), str(sae_facts(way))) for way in ways}) == 1


def test_a_folder_below_a_published_sae_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``checkpoints`` of a training run."""
    cache = cached(use_cache(tmp_path, monkeypatch), REPOSITORY)
    tiny.make_sae(cache / INSIDE / "step_1000")
    place = sae_place(SaeReference(REPOSITORY, f"{INSIDE}/step_1000"))
    assert (place.folder, place.published) == (cache / INSIDE / "step_1000", None)


QWEN: dict[str, Any] = {"release": "qwen-scope-3-8b-base-w64k-l50", "sae_id": "layer3"}


def test_one_file_among_those_of_other_saes_is_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "layer3.sae.pt").write_bytes(b"")
    for path in (tmp_path, tmp_path / "layer3.sae.pt"):
        place = sae_place(SaeReference(str(path), **QWEN))
        assert (place.folder, place.file, place.inside) == (tmp_path, "layer3.sae.pt", "layer3.sae.pt")


def test_a_file_of_another_name_is_refused_with_its_name(tmp_path: Path) -> None:
    """What belongs to the SAE, and so its fingerprint, goes by that name."""
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"mine\.pt has another name than .*, which is layer3\.sae\.pt in Qwen/"
    ):
        sae_place(SaeReference(str(mine), **QWEN))


def test_a_folder_without_the_file_is_refused_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no layer3\.sae\.pt, which is .* --include 'layer3\.sae\.pt' --local"
    ):
        sae_place(SaeReference(str(tmp_path), **QWEN))


def test_a_file_is_no_sae_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=rf"has no {INSIDE}, which is"):
        sae_place(named(tmp_path / "mine.pt"))


OTHER = "Qwen/SAE-Res-Qwen3-8B-Base-W64K-L0_100"


@pytest.mark.parametrize("path", [OTHER, OTHER.lower()])
def test_another_repository_of_the_hub_than_that_of_the_names_is_refused(path: str) -> None:
    """It has a file of the same name, whose k is another."""
    with pytest.raises(UnknownSae, match=rf"path {path} is another repository than that of qwen-scope-.*-l50/layer3"):
        sae_place(SaeReference(path, **QWEN))


def test_another_repository_in_the_cache_of_the_hub_is_refused(tmp_path: Path) -> None:
    snapshot = tmp_path / ("models--" + OTHER.replace("/", "--")) / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "layer3.sae.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=rf"is by its name a copy of {OTHER}"):
        sae_place(SaeReference(str(snapshot), **QWEN))


def test_a_repository_of_many_saes_is_refused_with_the_command_that_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cache(tmp_path, monkeypatch)
    said = f"{REPOSITORY} holds many SAEs: `extraction-assets saes {REPOSITORY}` lists them; name one by release"
    with pytest.raises(FileNotFoundError, match=said):
        sae_place(SaeReference(REPOSITORY))


def test_the_command_that_gets_one_file_gets_what_lies_beside_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--include 'layer_0\.safetensors' --include 'config\.yaml'"):
        sae_place(SaeReference(str(tmp_path), release="mwhanna-qwen3-4b-transcoders", sae_id="layer_0"))


def test_a_copy_without_the_sae_is_refused_with_the_command_that_gets_it(tmp_path: Path) -> None:
    said = (
        rf"has no {INSIDE}, which is gemma-2-2b-res-matryoshka-dc/.*: hf download {REPOSITORY} --include '{INSIDE}/\*'"
    )
    with pytest.raises(FileNotFoundError, match=said):
        sae_place(named(tmp_path))


def test_a_path_that_does_not_exist_is_named_so(tmp_path: Path) -> None:
    said = rf"path .*nowhere of SAE gemma-2-2b-res-.* does not exist: correct it, or hf download {REPOSITORY} --include"
    with pytest.raises(FileNotFoundError, match=said):
        sae_place(named(tmp_path / "nowhere"))


def test_the_folder_of_another_sae_of_the_repository_is_refused(copy: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is by its name standard/blocks\.4\.hook_resid_post of chanind/"):
        sae_place(named(copy / "standard" / "blocks.4.hook_resid_post"))


def test_a_copy_of_another_repository_is_refused(copy: Path, tmp_path: Path) -> None:
    other = copy.rename(tmp_path / "gemma-2-9b-batch-topk-matryoshka-saes-w-32k-l0-60")
    with pytest.raises(FileNotFoundError, match=r"is by its name a copy of chanind/gemma-2-9b-batch-topk"):
        sae_place(named(other))


def test_a_temporal_sae_is_refused_with_its_reason_before_it_is_looked_for() -> None:
    with pytest.raises(
        CheckpointError, match=r"temporal-sae-gemma-2-2b/blocks.12.* cannot be read: its features depend"
    ):
        sae_place(SaeReference(release="temporal-sae-gemma-2-2b", sae_id="blocks.12.hook_resid_post"))
    with pytest.raises(CheckpointError, match="cannot be read: its features depend"):
        sae_place(SaeReference("canrager/temporalSAEs", "gemma-2-2B/layer_12/temporal"))


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (SaeReference("gpt2-small-res-jb"), "write release: gpt2-small-res-jb and sae_id, such as sae_id: blocks.0"),
        (SaeReference("gpt2-small-res-jb", "blocks.8.hook_resid_pre"), "such as sae_id: blocks.8.hook_resid_pre"),
        (SaeReference("gpt2-small-res-jb/blocks.8.hook_resid_pre"), "such as sae_id: blocks.8.hook_resid_pre"),
        (SaeReference(release="google/gemma-scope-2b-pt-res", sae_id="x"), "is a repository of the hub"),
        (SaeReference(release="./things", sae_id="x"), "is a folder: release is a name of SAELens, path a folder"),
    ],
)
def test_a_release_in_place_of_a_path_is_named_and_the_other_way_round(reference: SaeReference, said: str) -> None:
    with pytest.raises(UnknownSae) as refused:
        sae_place(reference)
    assert said in str(refused.value)
