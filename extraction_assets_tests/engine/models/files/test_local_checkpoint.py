"""Where the checkpoint of a language model is found, and which of its files count."""

from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, checkpoint_files, resolve_checkpoint
from extraction_assets.settings import CheckpointReference, LanguageModelSettings
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.hub_server import HubServer
from extraction_assets_tests.own_code import make_own_model


def test_checkpoint_files_are_the_configuration_and_weights(llama: str) -> None:
    assert [file.name for file in checkpoint_files(local(llama))] == ["config.json", "model.safetensors"]


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a language model: it lacks config.json or \*.safetensors"):
        checkpoint_files(local(tmp_path))


@pytest.mark.parametrize("path", ["./nothing", "/nothing/at/all"])
def test_a_path_that_is_no_folder_is_refused_without_asking_the_hub(path: str) -> None:
    with pytest.raises(FileNotFoundError, match="the folder does not exist"):
        resolve_checkpoint(CheckpointReference(path))


def test_trusted_code_is_part_of_what_the_model_computes(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_code = make_own_model(llama, tmp_path / "own", monkeypatch)
    plain, trusted = checkpoint_files(local(with_code)), checkpoint_files(local(with_code, trust_remote_code=True))
    assert [file.name for file in trusted if file not in plain] == ["own_llama.py"]


def test_code_is_downloaded_only_where_it_is_trusted(hub: HubServer) -> None:
    repository = hub.add(
        "someone/model", **{"config.json": b"{}", "model.safetensors": b"", "code.py": b"", "x.md": b""}
    )
    plain = resolve_checkpoint(CheckpointReference("someone/model"))
    assert plain == LocalCheckpoint(plain.folder, False, repository.branches["main"])
    assert hub.fetched == ["config.json", "model.safetensors"]
    resolve_checkpoint(CheckpointReference("someone/model", trust_remote_code=True))
    assert hub.fetched == ["code.py", "config.json", "model.safetensors"]


def test_a_folder_of_hf_download_is_read_without_its_records(hub: HubServer, llama: str, tmp_path: Path) -> None:
    hub.add("someone/model", Path(llama))
    snapshot_download("someone/model", local_dir=tmp_path / "copy")
    hub.requests.clear()
    checkpoint = resolve_checkpoint(CheckpointReference(str(tmp_path / "copy")))
    assert (tmp_path / "copy" / ".cache" / "huggingface").is_dir()
    assert [file.name for file in checkpoint_files(checkpoint)] == ["config.json", "model.safetensors"]
    assert hub.requests == []


def test_settings_give_one_reference_of_all_that_names_a_checkpoint() -> None:
    settings = LanguageModelSettings(path="someone/model", revision="v1", trust_remote_code=True)
    assert settings.checkpoint == CheckpointReference("someone/model", "v1", trust_remote_code=True)
