"""Leases of GPUs: one holder a GPU, given back however its process ends, and errors in one sentence."""

import logging
import multiprocessing
import multiprocessing.synchronize
import signal
from pathlib import Path

import pytest

from extraction_assets.host.gpu_lease import DeviceError, lease, lease_if_free
from extraction_assets_tests.stores.build import HOSTILE

LOGGER = logging.getLogger(__name__)


def test_two_leases_get_two_gpus_and_a_third_waits(tmp_path: Path) -> None:
    waits: list[float] = []

    class Waited(Exception):
        pass

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise Waited

    names = ["GPU-a", "GPU-b"]
    with lease(names, LOGGER, tmp_path) as first, lease(names, LOGGER, tmp_path) as second:
        assert (first, second) == (0, 1)
        with pytest.raises(Waited), lease(names, LOGGER, tmp_path, sleep):
            pass
    assert len(waits) == 1
    with lease(names, LOGGER, tmp_path) as again:
        assert again == 0


def test_who_does_not_want_to_wait_gets_a_free_gpu_or_none(tmp_path: Path) -> None:
    with lease_if_free(["GPU-a"], LOGGER, tmp_path) as first, lease_if_free(["GPU-a"], LOGGER, tmp_path) as second:
        assert (first, second) == (0, None)
    with lease_if_free(["GPU-a"], LOGGER, tmp_path) as again:
        assert again == 0


def _hold(folder: Path, holding: "multiprocessing.synchronize.Event") -> None:
    with lease(["GPU-a"], LOGGER, folder):
        holding.set()
        signal.pause()


def test_a_killed_process_gives_its_gpu_back(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    holding = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, holding))
    process.start()
    assert holding.wait(60)
    process.kill()
    process.join()
    with lease(["GPU-a"], LOGGER, tmp_path, sleep=lambda _: pytest.fail("the GPU is still held")) as index:
        assert index == 0


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "links in a circle", "a device"])
def test_a_lease_file_that_is_none_is_one_sentence_and_nobody_waits_for_it(tmp_path: Path, kind: str) -> None:
    HOSTILE[kind](tmp_path / "GPU-a.lock")
    with (
        pytest.raises(DeviceError, match=r"GPU-a\.lock, by which GPUs are leased, cannot be locked: .*; remove it"),
        lease(["GPU-a"], LOGGER, tmp_path),
    ):
        pytest.fail("it was leased")


def test_a_lease_folder_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("")
    with pytest.raises(DeviceError, match="is not a folder: remove it"), lease(["a"], LOGGER, tmp_path / "leases"):
        pytest.fail("it was leased")
