"""An extraction whose model and SAEs are on the hub: with it, without it, and what commands say of its failures."""

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from huggingface_hub import constants, snapshot_download

from extraction_assets.engine.saes.located_checkpoint import sae_place
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests import command
from extraction_assets_tests.hub_server import Fault, HubServer, Request
from extraction_assets_tests.tiny import make_sae, make_settings

SAES = "jbloom/GPT2-Small-SAEs-Reformatted"
HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture
def on_hub(hub: HubServer, tiny_folder: Path, tmp_path: Path) -> ExtractionSettings:
    """The tiny extraction: its model by id, one SAE by id and subfolder, and one by release and id."""
    saes = tmp_path / "saes"
    shutil.copytree(tiny_folder / "relu", saes / "mine")
    make_sae(saes / "blocks.2.hook_resid_pre", seed=9)
    make_sae(saes / HOOK, "topk", seed=2)
    hub.add("someone/model", tiny_folder / "model")
    hub.add(SAES, saes)
    tiny = make_settings(tiny_folder)
    relu = tiny.saes["relu"].model_copy(update={"path": SAES, "subfolder": "mine"})
    by_name = relu.model_copy(update={"path": None, "subfolder": None, "release": "gpt2-small-res-jb", "sae_id": HOOK})
    model = tiny.language_model.model_copy(update={"path": "someone/model"})
    return tiny.model_copy(update={"language_model": model, "saes": {"relu": relu, "by_name": by_name}})


@pytest.mark.slow
def test_an_extraction_runs_from_the_hub_then_offline(
    hub: HubServer, on_hub: ExtractionSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = command.declare(monkeypatch, on_hub)
    commits = {name: one.branches["main"] for name, one in hub.repositories.items()}

    def move(request: Request) -> None:  # a branch moves when the first file is fetched
        for name, repository in hub.repositories.items():
            if request.method == "GET" and request.path.startswith(f"/{name}/resolve/"):
                repository.commit({"README.md": b"moved"})

    hub.before = move
    command.succeed(module, "run", on_hub.name)
    assert not [path for path in hub.fetched if "blocks.2" in path]
    assert len([request for request in hub.requests if "/api/models/" in request.path]) == len(hub.repositories)
    recorded = _recorded(home)
    assert recorded["language_model"]["revision"] == commits["someone/model"]
    assert {sae["revision"] for sae in recorded["saes"].values()} == {commits[SAES]}

    for name, commit in commits.items():
        hub.repositories[name].branches["main"] = commit
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "0 chunks, 0 merges" in command.succeed(module, "run", on_hub.name, "--missing")
    assert hub.requests == []


def _recorded(home: Path) -> dict[str, dict[str, dict[str, str]]]:
    engine = sa.create_engine(f"sqlite:///{home / 'results.sqlite'}")
    with engine.connect() as connection:
        found = connection.execute(sa.text("select settings from extractions limit 1")).scalar_one()
    engine.dispose()
    return json.loads(found) if isinstance(found, str) else found


def test_a_folder_of_hf_download_needs_no_hub(
    hub: HubServer, on_hub: ExtractionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = {name: tmp_path / "copies" / name for name in hub.repositories}
    for name, folder in copies.items():
        snapshot_download(name, local_dir=folder)
    hub.requests.clear()
    model = on_hub.language_model.model_copy(update={"path": str(copies["someone/model"])})
    saes = {name: sae.model_copy(update={"path": str(copies[SAES])}) for name, sae in on_hub.saes.items()}
    settings = on_hub.model_copy(update={"language_model": model, "saes": saes})
    assert "ok  extraction-assets" in command.succeed(command.declare(monkeypatch, settings), "check", settings.name)
    assert hub.requests == []


def test_check_and_run_say_in_one_sentence_that_an_sae_is_gated(
    hub: HubServer, on_hub: ExtractionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = command.declare(monkeypatch, on_hub)
    hub.repositories[SAES].gated = True
    for name in ("check", "run"):
        result = command.invoke(module, name, on_hub.name)
        assert result.exit_code == 1
        (line,) = [line for line in result.output.splitlines() if "gated" in line]
        assert f"{SAES} is gated: accept its terms at https://huggingface.co/{SAES}" in line
        assert "Traceback" not in result.output


def test_without_network_a_command_says_once_for_each_repository_that_it_reads_the_cache(
    hub: HubServer, on_hub: ExtractionSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = command.declare(monkeypatch, on_hub)
    command.succeed(module, "check", on_hub.name)
    hub.stop()
    command.succeed(module, "check", on_hub.name)
    said = [record.getMessage() for record in caplog.records if "is read from the cache in" in record.getMessage()]
    assert [name for name in hub.repositories for line in said if name in line] == list(hub.repositories)


def test_a_cache_that_cannot_note_what_a_branch_means_is_used(
    hub: HubServer, on_hub: ExtractionSettings, tmp_path: Path
) -> None:
    refs = tmp_path / "hf" / "hub" / f"models--{SAES.replace('/', '--')}" / "refs"
    refs.parent.mkdir(parents=True)
    refs.write_text("no folder")  # root may write to a folder of any mode
    place = sae_place(on_hub.saes["by_name"].checkpoint)
    assert (place.commit, place.folder.is_dir()) == (hub.repositories[SAES].branches["main"], True)


@pytest.mark.slow
def test_check_and_run_say_in_one_sentence_that_the_hub_fails(
    hub: HubServer, on_hub: ExtractionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = command.declare(monkeypatch, on_hub)
    hub.faults.append(Fault(f"{HOOK}/", status=503, times=10_000))
    for name in ("check", "run"):
        result = command.invoke(module, name, on_hub.name)
        assert result.exit_code == 1
        (line,) = [line for line in result.output.splitlines() if "503" in line]
        assert f"SAE gpt2-small-res-jb/{HOOK}: the Hugging Face hub does not give it (HTTP 503)" in line


@pytest.mark.slow
def test_a_merge_whose_branch_has_moved_is_not_taken_for_current(
    hub: HubServer, on_hub: ExtractionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = command.declare(monkeypatch, on_hub)
    command.succeed(module, "run", on_hub.name)
    saes, other = hub.repositories[SAES], make_sae(tmp_path / "other", seed=77) / "sae_weights.safetensors"
    saes.commit({**saes.commits[saes.branches["main"]], f"mine/{other.name}": other.read_bytes()})
    said = command.succeed(module, "run", on_hub.name, "--missing")
    assert "merge of by_name is current" in said  # its file is the same
    assert "3 chunks, 1 merge" in said
