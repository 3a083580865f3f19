"""Whatever the hub answers, one sentence says what is missing and what to do; the cache is used where it suffices."""

import errno
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from extraction_assets.engine.hub import HubError, HubSource, HubUnavailable, Snapshot, download_chosen, download_files
from extraction_assets.engine.hub.transfer import ATTEMPTS
from extraction_assets_tests.hub_server import Fault, HubServer, Repository

NAMES = ["a/cfg.json", "a/weights.safetensors"]
SOURCE = HubSource("SAE gemma-scope/layer_1:", "some/saes", include=("a*",))


@pytest.fixture
def saes(hub: HubServer) -> Repository:
    return hub.add("some/saes", **{"a/cfg.json": b"{}", "a/weights.safetensors": b"weights" * 1000})


def download(revision: str | None = None, repository: str = "some/saes") -> Snapshot:
    return download_files(SOURCE._replace(revision=revision, repository=repository), NAMES)


def refused(revision: str | None = None, repository: str = "some/saes") -> HubError:
    """Why nothing of it is there."""
    try:
        found = download(revision, repository)
    except HubError as error:
        return error
    assert found.refused is not None
    assert not (found.folder / NAMES[1]).exists()
    return found.refused


def test_a_gated_repository_names_the_page_to_accept(saes: Repository) -> None:
    saes.gated = True
    assert str(refused()) == (
        "SAE gemma-scope/layer_1: some/saes is gated: accept its terms at https://huggingface.co/some/saes, and set "
        "HF_TOKEN to a token of that account, or run `hf auth login`"
    )


def test_a_gated_repository_is_read_with_a_token(saes: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    saes.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert (download().folder / NAMES[1]).is_file()


def test_a_gated_model_names_the_page_to_accept(saes: Repository) -> None:
    saes.gated = True
    with pytest.raises(HubError, match=r"is gated: accept its terms at https://huggingface.co/some/saes"):
        download_chosen(SOURCE, list, last="a/cfg.json")


def test_a_token_that_is_not_accepted_is_not_shown(saes: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    said = str(refused())
    assert "the hub does not accept the token in HF_TOKEN or of `hf auth login`" in said
    assert "hf_wrong" not in said


def test_a_repository_that_is_not_there_or_private_is_named(saes: Repository) -> None:
    saes.private = True
    for repository in ("some/saes", "no/such"):
        assert f"the hub has no repository {repository!r}, or it is private" in str(refused(repository=repository))


@pytest.mark.parametrize("revision", ["nowhere", "0" * 40])
def test_a_revision_that_is_not_there_is_named(saes: Repository, revision: str) -> None:
    assert f"some/saes has no revision {revision!r}: its branches" in str(refused(revision))


def test_a_name_that_is_no_repository_is_named() -> None:
    assert "'a/b/c' is no id of a repository (owner/name) either" in str(refused(repository="a/b/c"))


def test_a_file_that_goes_between_two_requests_is_named(hub: HubServer, saes: Repository) -> None:
    hub.faults.append(Fault("weights", "GET", status=404, headers={"X-Error-Code": "EntryNotFound"}))
    with pytest.raises(HubError, match="some/saes lacks a file that its listing has"):
        download()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_keeps_failing_is_given_up(hub: HubServer, saes: Repository, status: int) -> None:
    hub.faults.append(Fault("signature", status=status, times=100))
    with pytest.raises(HubUnavailable, match=rf"the Hugging Face hub does not give it \(HTTP {status}\)"):
        download()
    assert len([request for request in hub.requests if request.cdn]) == ATTEMPTS


def test_a_server_that_asks_for_a_long_wait_is_given_up(hub: HubServer, saes: Repository) -> None:
    hub.faults.append(Fault("signature", status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(HubUnavailable, match=r"\(HTTP 429, and it asks to wait 3600 s\)"):
        download()


def test_without_network_the_command_for_another_machine_is_named(hub: HubServer, saes: Repository) -> None:
    hub.stop()
    with pytest.raises(HubUnavailable) as caught:
        download()
    assert "hf download some/saes --include 'a*' --local-dir FOLDER, and set path to that folder" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_without_network_the_cache_is_used_and_that_is_said(
    hub: HubServer, saes: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    commit = download().commit
    saes.commit({"a/cfg.json": b"[]", "a/weights.safetensors": b""})
    hub.stop()
    with caplog.at_level(logging.WARNING):
        found = download()
    assert (found.commit, (found.folder / NAMES[1]).is_file()) == (commit, True)
    assert f"some/saes is read from the cache in {constants.HF_HUB_CACHE}, at commit {commit}" in caplog.text


def test_offline_the_cache_is_used_without_a_word(
    hub: HubServer, saes: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    download()
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (download().folder / NAMES[1]).is_file()
    assert (caplog.text, hub.requests) == ("", [])


def test_offline_a_file_that_the_cache_lacks_is_refused(saes: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set while the cache in" in str(refused())


def test_a_gated_repository_is_read_from_the_cache_without_a_token(
    saes: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    saes.private = True
    download()
    monkeypatch.delenv("HF_TOKEN")
    assert (download().folder / NAMES[1]).is_file()
    assert "the Hugging Face hub refuses (HTTP 401): some/saes is read from the cache" in caplog.text


def test_a_model_that_broke_off_is_no_model_offline(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("some/model", **{"config.json": b"{}", "model.safetensors": b"weights" * 1000})
    hub.faults.append(Fault("signature", status=503, times=100))
    source = HubSource("no checkpoint:", "some/model")
    with pytest.raises(HubUnavailable):
        download_chosen(source, list, last="config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        download_chosen(source, list, last="config.json")


def test_a_disk_without_room_is_named_before_the_first_byte(
    hub: HubServer, saes: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=100))
    with pytest.raises(HubError, match=r"0.0 GB are to be downloaded to .*, where 0.0 GB are free: make room there"):
        download()
    assert not any(request.cdn for request in hub.requests)


def test_a_disk_that_fills_meanwhile_is_named(saes: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file = Path.open

    def full(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode == "ab":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return open_file(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(HubError, match=r"cannot be written \(No space left on device\): make room there"):
        download()


def test_a_listing_cannot_lead_out_of_the_cache(hub: HubServer) -> None:
    hub.add("some/model", **{"../../evil.py": b"evil", "config.json": b"{}"})
    with pytest.raises(HubError, match=r"the repository holds '../../evil.py', which lies outside of it"):
        download_chosen(HubSource("no checkpoint:", "some/model"), list, last="config.json")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HF_TOKEN", "hf_gööd", "UnicodeEncodeError"),
        ("HTTP_PROXY", "foo://proxy", "Unknown scheme for proxy"),
    ],
)
def test_a_setting_that_no_request_can_be_sent_with_is_not_waited_for(
    saes: Repository, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    close_session()
    error = refused()
    assert not isinstance(error, HubUnavailable)
    assert said in str(error)
    assert "cannot be asked" in str(error)


def test_an_endpoint_that_is_no_address_is_not_waited_for(saes: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "nonsense")
    error = refused()
    assert not isinstance(error, HubUnavailable)
    assert "missing an 'http://' or 'https://' protocol" in str(error)


def test_a_home_of_the_cache_that_is_a_file_is_named(
    saes: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "file" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    assert f"Not a directory: '{tmp_path}/file/token'" in str(refused())
