"""What a chunk uses: this process is measured as it is, the GPU's driver is made up."""

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from extraction_assets.resources import utilization
from extraction_assets.resources.utilization import UtilizationSampler
from extraction_assets_tests.fake_nvml import FakeGpu, FakeNvml, install

LOGGER = logging.getLogger("test")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch whose only GPU is ``bb``: the driver's second one, as under CUDA_VISIBLE_DEVICES=1."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(uuid="bb"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _device: 4 * 2**30)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample but those that the test takes."""
    monkeypatch.setattr(utilization, "SECONDS_BETWEEN_SAMPLES", 3600.0)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cpu_has_no_gpu_metadata() -> None:
    with UtilizationSampler(CPU, LOGGER) as sampler:
        assert sampler.read().metadata().keys() == {"cpu_utilization_mean", "peak_ram_gb"}
        assert sampler.gpu_percent is None


def test_a_busy_core_is_a_hundred_percent_and_a_sleeping_one_none() -> None:
    with UtilizationSampler(CPU, LOGGER) as sampler:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        busy = sampler.read().cpu_utilization_mean
        sampler.restart()
        time.sleep(0.3)
        assert sampler.read().cpu_utilization_mean < busy / 2
    assert 5 < busy < 250  # other programs share the cores


@pytest.mark.usefixtures("by_hand")
@pytest.mark.slow
def test_peak_memory_is_that_since_the_restart() -> None:
    with UtilizationSampler(CPU, LOGGER) as sampler:
        before = sampler.read().peak_ram_gb
        ballast = torch.ones(2**27)  # 0.5 GiB
        with_ballast = sampler.read().peak_ram_gb
        del ballast
        after_it = sampler.read().peak_ram_gb
        sampler.restart()
        after_restart = sampler.read().peak_ram_gb
    assert with_ballast - before == pytest.approx(0.5, abs=0.1)
    assert after_it == with_ballast
    assert after_restart < with_ballast - 0.4


def test_the_thread_samples_by_itself_and_ends() -> None:
    with UtilizationSampler(CPU, LOGGER) as sampler:
        _wait(lambda: sampler._peak_ram > 0)
    assert not sampler._thread.is_alive()


@pytest.mark.usefixtures("cuda", "by_hand")
def test_the_gpu_is_found_by_uuid_and_read_as_mean_and_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first answer is asked for when the GPU is looked up.
    nvml = install(monkeypatch, FakeNvml([FakeGpu("aa", busy=(1,)), FakeGpu("bb", busy=(0, 90, 70, 50, 10))]))
    with UtilizationSampler(CUDA, LOGGER) as sampler:
        sampler._sample()
        sampler._sample()
        used = sampler.read()
        assert (used.gpu_utilization_mean, used.gpu_utilization_max, sampler.gpu_percent) == (70.0, 90.0, 50.0)
        sampler.restart()
        used = sampler.read()
    assert (used.gpu_utilization_mean, used.gpu_utilization_max) == (10.0, 10.0)
    assert (used.peak_vram_gb, used.peak_vram_reserved_gb) == (3.0, 4.0)
    assert nvml.opened == 0


@pytest.mark.usefixtures("cuda", "by_hand")
@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (FakeNvml([], refuses=12, text="NVML Shared Library Not Found"), "NVML Shared Library Not Found"),
        (FakeNvml([FakeGpu("aa")]), "Not Found"),
        (FakeNvml([FakeGpu("bb", busy=(FakeNvml.NVMLError(3, "Not Supported"),))]), "Not Supported"),
        (FakeNvml([FakeGpu("bb", busy=(50, 60, FakeNvml.NVMLError(15, "GPU is lost")))]), "GPU is lost"),
    ],
    ids=["no library", "unknown GPU", "a MIG slice", "fails later"],
)
def test_a_driver_that_fails_leaves_the_gpu_out_and_says_why_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, nvml: FakeNvml, reason: str
) -> None:
    caplog.set_level(logging.DEBUG)
    install(monkeypatch, nvml)
    with UtilizationSampler(CUDA, LOGGER) as sampler:
        sampler._sample()
        first, second = sampler.read().metadata(), sampler.read().metadata()
        assert sampler.gpu_percent is None
    known = {"cpu_utilization_mean", "peak_ram_gb", "peak_vram_gb", "peak_vram_reserved_gb"}
    assert first.keys() == second.keys() == known
    (record,) = [one for one in caplog.records if one.name == "test"]
    assert (record.levelname, reason in record.getMessage()) == ("DEBUG", True)
    assert nvml.opened == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_that_works_is_busy() -> None:
    with UtilizationSampler(CUDA, LOGGER) as sampler:
        matrix = torch.randn(4096, 4096, device=CUDA)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            (matrix @ matrix).sum().item()
        used = sampler.read()
    assert used.peak_vram_gb is not None
    assert 0.1 < used.peak_vram_gb < 1
    if used.gpu_utilization_max is not None:  # a container may have no NVML
        assert used.gpu_utilization_max > 50
