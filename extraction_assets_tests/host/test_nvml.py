"""What the NVIDIA driver is asked, with a driver that a test makes up."""

import sys

import pytest

from extraction_assets.host.nvml import DriverError, NoDriver, gpu_meter, list_gpus
from extraction_assets_tests.fake_nvml import FakeGpu, FakeNvml, install


def test_gpus_have_torchs_uuid_and_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = install(monkeypatch, FakeNvml([FakeGpu("aa", free_mib=100), FakeGpu("bb")]))
    first, second = list_gpus()
    assert (first.number, first.uuid, first.total_mib, first.free_mib) == (0, "aa", 81_920, 100)
    assert (second.number, second.uuid, second.driver) == (1, "bb", "550.1")
    assert nvml.opened == 0


def test_the_meter_reads_the_gpu_of_that_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = install(monkeypatch, FakeNvml([FakeGpu("aa", busy=(10,)), FakeGpu("bb", busy=(80,))]))
    with gpu_meter("bb") as percent:
        assert percent() == 80.0
    assert nvml.opened == 0


@pytest.mark.parametrize("busy", [(FakeNvml.NVMLError(3, "Not Supported"),), (FakeNvml.NVMLError(999, "Unknown"),)])
def test_a_gpu_that_does_not_say_how_busy_it_is_is_an_error(
    monkeypatch: pytest.MonkeyPatch, busy: tuple[Exception, ...]
) -> None:
    nvml = install(monkeypatch, FakeNvml([FakeGpu("aa", busy=busy)]))
    with pytest.raises(DriverError, match=r"NVML fails: (Not Supported|Unknown)"), gpu_meter("aa"):
        pass
    assert nvml.opened == 0


def test_a_gpu_that_the_driver_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml([FakeGpu("aa")]))
    with pytest.raises(DriverError, match="Not Found"), gpu_meter("cc"):
        pass


def test_a_host_without_a_driver_is_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml([], refuses=FakeNvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    with pytest.raises(NoDriver):
        list_gpus()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DriverError, match="nvidia-ml-py is not installed"):
        list_gpus()


def test_the_real_library_names_the_errors_that_are_distinguished() -> None:
    import pynvml

    assert FakeNvml.NVML_ERROR_LIBRARY_NOT_FOUND == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    assert pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND).value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    assert all(hasattr(pynvml, name) for name in vars(FakeNvml) if name.startswith("nvml"))
