"""Files come from a hub on this machine into the cache: those that are wanted, of one commit, whole."""

import logging
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from extraction_assets.engine.hub import (
    HubSource,
    HubUnavailable,
    Snapshot,
    download_chosen,
    download_files,
    hub_session,
    transfer,
)
from extraction_assets_tests.hub_server import Fault, HubServer, Repository, Request

NAMES = ["a/cfg.json", "a/weights.safetensors", "a/optional.json"]
WEIGHTS = bytes(range(256)) * 20_000  # 5 MB
SOURCE = HubSource("no checkpoint 'some/saes':", "some/saes")


@pytest.fixture
def saes(hub: HubServer) -> Repository:
    others = {f"b{number}/weights.safetensors": b"others" for number in range(5)}
    return hub.add("some/saes", **{"a/cfg.json": b"{}", "a/weights.safetensors": WEIGHTS, **others})


def download() -> Snapshot:
    return download_files(SOURCE, NAMES)


def test_the_wanted_files_and_no_others_are_requested(hub: HubServer, saes: Repository) -> None:
    found = download()
    assert (found.folder / "a/weights.safetensors").read_bytes() == WEIGHTS
    assert found.commit == saes.branches["main"]
    assert hub.fetched == ["a/cfg.json", "a/weights.safetensors"]
    assert not any("/tree/" in request.path or "b1" in request.path for request in hub.requests)


def test_the_cache_is_that_of_huggingface_hub(hub: HubServer, saes: Repository, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    folder = download().folder
    requests = len(hub.requests)
    theirs = hf_hub_download("some/saes", NAMES[1], revision=saes.branches["main"])
    assert Path(theirs) == folder / NAMES[1]
    assert len(hub.requests) == requests
    assert try_to_load_from_cache("some/saes", NAMES[2]) is not None  # known not to exist
    assert folder.is_relative_to(tmp_path / "hf" / "hub" / "models--some--saes" / "snapshots")


def test_what_huggingface_hub_has_downloaded_is_not_fetched_again(hub: HubServer, saes: Repository) -> None:
    from huggingface_hub import snapshot_download

    theirs = snapshot_download("some/saes", allow_patterns=["a/*"])
    hub.requests.clear()
    assert str(download().folder) == theirs
    assert hub.fetched == []


def test_a_second_download_asks_only_what_the_branch_means(hub: HubServer, saes: Repository) -> None:
    download()
    hub.requests.clear()
    download()
    assert [request.path for request in hub.requests] == ["/api/models/some/saes?expand=sha"]


def test_a_full_commit_hash_needs_no_request(hub: HubServer, saes: Repository) -> None:
    source = SOURCE._replace(revision=saes.branches["main"])
    download_files(source, NAMES)
    hub.requests.clear()
    download_files(source, NAMES)
    assert hub.requests == []


def test_a_moved_branch_gives_its_new_files(hub: HubServer, saes: Repository) -> None:
    first = download()
    saes.commit({"a/cfg.json": b"[]", "a/weights.safetensors": WEIGHTS})
    hub.requests.clear()
    second = download()
    assert (second.folder / "a/cfg.json").read_bytes() == b"[]"
    assert (first.folder / "a/cfg.json").read_bytes() == b"{}"
    assert not any(request.cdn for request in hub.requests)  # the weights are the same


def test_a_session_keeps_the_commit_of_a_branch_that_moves(hub: HubServer, saes: Repository) -> None:
    with hub_session(lambda *_: nullcontext(lambda _size: None), logging.getLogger()):
        first = download()
        saes.commit({"a/cfg.json": b"[]", "a/weights.safetensors": WEIGHTS})
        with hub_session(lambda *_: nullcontext(lambda _size: None), logging.getLogger()):  # a step of the command
            assert download().commit == first.commit
    assert download().commit != first.commit


@pytest.mark.parametrize("cut", [0, 1_500_000, 5_000_000])
def test_a_transfer_that_breaks_goes_on_where_it_stopped(hub: HubServer, saes: Repository, cut: int) -> None:
    hub.faults.append(Fault("signature", "GET", cut=cut))
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS
    assert len(hub.ranges("weights.safetensors?signature=secret")) == 2


def broken_download(hub: HubServer, cut: int) -> None:
    """A download that gives up after ``cut`` bytes of the weights."""
    hub.faults += [Fault("signature", cut=cut), Fault("signature", status=503, times=transfer.ATTEMPTS)]
    with pytest.raises(HubUnavailable, match=r"the Hugging Face hub does not give it \(HTTP 503\)"):
        download()
    hub.faults.clear()
    hub.requests.clear()


def test_a_later_run_resumes_what_an_earlier_one_has_left(hub: HubServer, saes: Repository) -> None:
    broken_download(hub, cut=2_000_000)
    assert not list(Path(download_root()).glob("snapshots/*/a/weights*"))
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS
    ranges = [one.range for one in hub.requests if one.cdn]
    assert len(ranges) == 1
    assert ranges[0] is not None
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) >= 1_000_000


def download_root() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / "models--some--saes"


def test_a_killed_process_leaves_what_the_next_one_goes_on_with(hub: HubServer, saes: Repository) -> None:
    stall = threading.Event()
    hub.faults.append(Fault("signature", cut=2_000_000, stall=stall))
    program = f"from extraction_assets.engine.hub import *; download_files(HubSource('x:', 'some/saes'), {NAMES})"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        for _ in range(600):
            if any(left.stat().st_size >= 1 << 20 for left in download_root().glob("blobs/*.incomplete")):
                break
            time.sleep(0.05)
        process.kill()
    stall.set()
    hub.requests.clear()
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS
    assert [one.range for one in hub.requests if one.cdn] == ["bytes=1048576-"]


def test_a_server_that_knows_no_ranges_sends_the_whole_file_again(hub: HubServer, saes: Repository) -> None:
    broken_download(hub, cut=2_000_000)
    hub.faults.append(Fault("signature", ignores_range=True, times=9))
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS
    assert len([request for request in hub.requests if request.cdn]) == 1


def test_a_damaged_remainder_is_fetched_from_its_beginning(hub: HubServer, saes: Repository) -> None:
    broken_download(hub, cut=2_000_000)
    (left,) = download_root().glob("blobs/*.incomplete")
    left.write_bytes(b"x" * 1_000_000)
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS


def test_a_remainder_that_is_too_long_is_fetched_from_its_beginning(hub: HubServer, saes: Repository) -> None:
    broken_download(hub, cut=2_000_000)
    (left,) = download_root().glob("blobs/*.incomplete")
    left.write_bytes(WEIGHTS + b"more")
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS


def test_a_body_with_another_hash_never_enters_the_cache(hub: HubServer, saes: Repository) -> None:
    hub.faults.append(Fault("signature", corrupt=True, times=2))
    with pytest.raises(HubUnavailable, match=r"weights.safetensors arrived twice with another SHA-256 than the hub"):
        download()
    assert not list(download_root().glob("snapshots/*/a/weights*"))
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("path", ["/api/models/", "/resolve/", "signature"])
def test_a_server_error_that_passes_is_tried_again(hub: HubServer, saes: Repository, status: int, path: str) -> None:
    hub.faults.append(Fault(path, status=status, headers={"Retry-After": "0"}, times=2))
    assert (download().folder / NAMES[1]).read_bytes() == WEIGHTS


def test_weights_come_after_what_says_how_to_read_them(hub: HubServer, saes: Repository) -> None:
    """Else they would be read without it, where the hub does not answer the next time."""
    was_there = list[bool]()

    def look(request: Request) -> None:
        if request.method == "GET" and request.path.endswith("cfg.json"):
            time.sleep(0.2)
        if request.method == "GET" and request.path.endswith("weights.safetensors"):
            was_there.append(any(download_root().rglob("cfg.json")))

    hub.before = look
    download()
    assert was_there
    assert all(was_there)


def test_two_threads_download_a_file_once(hub: HubServer, saes: Repository) -> None:
    found: list[Snapshot] = []
    threads = [threading.Thread(target=lambda: found.append(download())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert len([request for request in hub.requests if request.cdn]) == 1


def test_files_that_are_chosen_come_with_the_configuration_last(hub: HubServer) -> None:
    hub.add("some/model", **{"config.json": b"{}", "model.safetensors": WEIGHTS, "notes.md": b"x", "vocab.txt": b"v"})
    source = HubSource("no checkpoint:", "some/model")
    found = download_chosen(source, lambda sizes: [name for name in sizes if name != "notes.md"], last="config.json")
    assert sorted(path.name for path in found.folder.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    assert [one.path.rpartition("/")[2] for one in hub.requests if one.method == "GET"][-1] == "config.json"


def test_the_token_goes_to_the_hub_and_to_no_other_host(
    hub: HubServer, saes: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    saes.private = True
    download()
    assert {request.token for request in hub.requests if not request.cdn} == {"hf_good"}
    assert {request.token for request in hub.requests if request.cdn} == {None}


def test_progress_is_told_the_bytes_of_what_is_fetched(hub: HubServer, saes: Repository) -> None:
    broken_download(hub, cut=2_000_000)
    shown: list[tuple[str, int]] = []
    arrived: list[int] = []

    def show(what: str, size: int) -> nullcontext[object]:
        shown.append((what, size))
        return nullcontext(arrived.append)

    with hub_session(show, logging.getLogger()):  # type: ignore[arg-type]
        download()
        download()
    assert shown == [("some/saes", len(WEIGHTS))]
    assert sum(arrived) == len(WEIGHTS)
