"""The GPU resource: its defaults, its errors, and the lease."""

import logging
import multiprocessing
import signal
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from extraction_assets.resources import GpuResource
from extraction_assets.resources import gpu as gpu_module
from extraction_assets.resources.gpu import lease

LOGGER = logging.getLogger("test")


def test_missing_fields_mean_the_defaults() -> None:
    gpu = GpuResource()
    assert gpu.device == "auto"
    assert (gpu.batch_size, gpu.vectorization_batch_size, gpu.vectorized) == (128, "auto", True)
    assert (gpu.num_workers, gpu.matmul_precision, gpu.memory_budget_gb) == (8, "high", None)


@pytest.mark.parametrize(("text", "expected"), [("0", False), ("false", False), ("True", True), ("1", True)])
def test_the_environment_sets_the_default_of_vectorized(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: bool
) -> None:
    monkeypatch.setenv("USE_VECTORIZED_EXTRACTION", text)
    assert GpuResource().vectorized is expected


def test_an_unclear_environment_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_VECTORIZED_EXTRACTION", "banana")
    with pytest.raises(ValueError, match="USE_VECTORIZED_EXTRACTION is 'banana'; use true or false"):
        GpuResource()


@pytest.mark.parametrize("field", ["batch_size", "num_workers"])
def test_counts_are_positive(field: str) -> None:
    with pytest.raises(ValidationError):
        GpuResource(**{field: 0})


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValidationError, match="device must be 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        GpuResource(device="banana")


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of a machine without a GPU")
def test_a_gpu_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"torch sees 0 GPU\(s\)"), GpuResource(device="cuda:0").use_device(LOGGER):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of a machine without a GPU")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    with GpuResource().use_device(LOGGER) as device:
        assert device.type == "cpu"


def test_a_budget_bounds_the_automatic_batch() -> None:
    gpu = GpuResource(memory_budget_gb=0.1)
    batch = gpu.vectorization_batch(torch.device("cpu"), latent_dim=16_384, seq_len=128, logger=LOGGER)
    assert batch.size == 2  # 0.1 GiB * 0.7 / (128 * 16384 * 12 bytes = 0.0234 GiB) = 2.99


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the lease itself is tested without one")
def test_auto_leases_a_real_gpu_and_a_second_run_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_module, "gpu_lease_folder", lambda: tmp_path / "extraction-assets-gpus")

    def no_wait(_seconds: float) -> None:
        raise TimeoutError

    with GpuResource().use_device(LOGGER) as device:
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        with pytest.raises(TimeoutError), lease([uuid], LOGGER, tmp_path / "extraction-assets-gpus", no_wait):
            pass
