"""What code versions see of an SAE's checkpoint: known when definitions load, without the hub and without torch."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.component import build_definitions
from extraction_assets.execution import lineage
from extraction_assets.execution.lineage import each_checkpoint_once, sae_identity
from extraction_assets.settings import SaeSettings
from extraction_assets_tests import tiny

REPOSITORY = "chanind/gemma-2-2b-batch-topk-matryoshka-saes-w-32k-l0-40"
INSIDE = "standard/blocks.3.hook_resid_post"
NAMES: dict[str, Any] = {"release": "gemma-2-2b-res-matryoshka-dc", "sae_id": "blocks.3.hook_resid_post"}


def identity(**sae: Any) -> Any:
    return sae_identity(SaeSettings(**sae))


def test_names_are_as_the_place_on_the_hub_that_they_mean() -> None:
    by_name = identity(**NAMES)
    assert by_name == identity(path=REPOSITORY, subfolder=INSIDE) == [f"{REPOSITORY}/{INSIDE}", None]
    assert by_name == identity(path=REPOSITORY, **NAMES)
    assert by_name != identity(**NAMES, revision="v1") == [f"{REPOSITORY}/{INSIDE}", "v1"]


def test_two_names_of_one_file_are_equal() -> None:
    canonical = {"release": "gemma-scope-2b-pt-res-canonical", "sae_id": "layer_12/width_16k/canonical"}
    file = {"release": "gemma-scope-2b-pt-res", "sae_id": "layer_12/width_16k/average_l0_82"}
    assert (
        identity(**canonical) == identity(**file) != identity(**{**file, "sae_id": "layer_12/width_16k/average_l0_22"})
    )


def test_of_a_copy_the_files_of_this_sae_count_deep_inside_it(tmp_path: Path) -> None:
    tiny.make_sae(tmp_path / INSIDE)
    before = identity(path=str(tmp_path), **NAMES)
    assert before == identity(path=str(tmp_path), subfolder=INSIDE) == identity(path=str(tmp_path / INSIDE))
    tiny.make_sae(tmp_path / "standard" / "blocks.4.hook_resid_post", seed=4)
    assert identity(path=str(tmp_path), **NAMES) == before
    shutil.rmtree(tmp_path / INSIDE)
    tiny.make_sae(tmp_path / INSIDE, seed=5)
    assert identity(path=str(tmp_path), **NAMES) != before


@pytest.mark.parametrize("name", ["layer3.sae.pt", "weights.pth", "layer_3.safetensors", "params_3.npz"])
def test_of_a_file_among_others_it_alone_counts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"first")
    before = identity(path=str(tmp_path), subfolder=name)
    (tmp_path / f"other-{name}").write_bytes(b"other")
    assert identity(path=str(tmp_path), subfolder=name) == before
    (tmp_path / name).write_bytes(b"second")
    assert identity(path=str(tmp_path), subfolder=name) != before


def test_a_copy_that_is_not_there_yet_is_its_path_and_names(tmp_path: Path) -> None:
    path = str(tmp_path / "later")
    assert identity(path=path, **NAMES) == [path, None, *NAMES.values()]
    assert identity(path=path, subfolder="sae") == [f"{path}/sae", None]


def test_names_that_do_not_exist_do_not_stop_it() -> None:
    assert identity(release="nobody", sae_id="nothing") == [None, None, "nobody", "nothing"]


def test_weights_in_a_folder_below_count(tmp_path: Path) -> None:
    """Llama Scope's lie in ``checkpoints``."""
    (tmp_path / "hyperparams.json").write_text("{}")
    weights = tmp_path / "checkpoints" / "final.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"first")
    before = identity(path=str(tmp_path))
    weights.write_bytes(b"second")
    assert identity(path=str(tmp_path)) != before


def test_a_checkpoint_is_looked_at_once_inside_a_block_and_again_in_the_next(tmp_path: Path) -> None:
    tiny.make_sae(tmp_path / "sae")
    with each_checkpoint_once():
        before = identity(path=str(tmp_path / "sae"))
        shutil.rmtree(tmp_path / "sae")
        tiny.make_sae(tmp_path / "sae", seed=5)
        assert identity(path=str(tmp_path / "sae")) == before
    after = identity(path=str(tmp_path / "sae"))
    assert after != before
    with each_checkpoint_once():
        assert identity(path=str(tmp_path / "sae")) == after


def test_definitions_look_at_each_checkpoint_once(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look, looked_at = lineage._identity_of, list[Path]()

    def noting(files: Iterable[Path]) -> Any:
        files = list(files)
        looked_at.append(files[0].parent)
        return look(files)

    monkeypatch.setattr(lineage, "_identity_of", noting)
    build_definitions(tiny.make_settings(tiny_folder))
    assert sorted(looked_at) == [tiny_folder / name for name in ("model", "relu", "topk")]
