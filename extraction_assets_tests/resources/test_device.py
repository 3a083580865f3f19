"""The device of a run on a host with GPUs, which torch is told of here: leased, or given by Ray."""

import logging
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from extraction_assets.host import gpu_lease
from extraction_assets.host.gpu_lease import lease_if_free
from extraction_assets.resources import device as devices
from extraction_assets.resources.device import choose_device, choose_idle_device

LOGGER = logging.getLogger(__name__)
BOTH_WAYS = pytest.mark.parametrize("choose", [choose_device, choose_idle_device])


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The leases of a host with two GPUs, ``aa`` and ``bb``."""
    monkeypatch.setattr(gpu_lease, "gpu_lease_folder", lambda: tmp_path / "leases")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=("aa", "bb")[index]))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    monkeypatch.setattr(devices, "keep_compiled_kernels", lambda: None)
    return tmp_path / "leases"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Ray job to which both were given."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")


def _held(folder: Path, *names: str) -> ExitStack:
    held = ExitStack()
    for name in names:
        assert held.enter_context(lease_if_free([name], LOGGER, folder)) == 0
    return held


@BOTH_WAYS
def test_a_gpu_of_ray_is_used_whoever_holds_its_lease(
    choose: type[choose_device], leases: Path, given: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with _held(leases, "aa", "bb"), choose("auto", LOGGER) as device:
        assert device == torch.device("cuda", 0)
    assert "Ray gave this run CUDA_VISIBLE_DEVICES=4,6" in caplog.text


@BOTH_WAYS
def test_runs_that_ray_does_not_know_leave_its_gpu_alone(
    choose: type[choose_device], leases: Path, given: None
) -> None:
    with choose("auto", LOGGER), lease_if_free(["aa"], LOGGER, leases) as free:
        assert free is None


def test_a_job_without_gpus_computes_on_the_cpu(leases: Path, given: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with choose_device("auto", LOGGER) as device:
        assert device.type == "cpu"


def test_without_ray_a_held_gpu_is_passed_over(leases: Path) -> None:
    with _held(leases, "aa"), choose_device("auto", LOGGER) as device:
        assert device == torch.device("cuda", 1)
