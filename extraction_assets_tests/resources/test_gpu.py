"""The GPU resource: its defaults, its errors, and the lease."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from dagster._config.snap import ConfigFieldSnap
from pydantic import ValidationError

from extraction_assets.host import gpu_lease
from extraction_assets.host.gpu_lease import lease
from extraction_assets.resources import GpuResource

LOGGER = logging.getLogger("test")


def test_missing_fields_mean_the_defaults() -> None:
    gpu = GpuResource()
    assert gpu.device == "auto"
    assert (gpu.batch_size, gpu.vectorization_batch_size, gpu.vectorized) == (128, "auto", True)
    assert (gpu.num_workers, gpu.matmul_precision, gpu.compile_model, gpu.memory_budget_gb) == (8, "high", False, None)


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


def _job(resource: GpuResource) -> dg.JobDefinition:
    @dg.op
    def settings(gpu: GpuResource) -> dict[str, Any]:
        return {name: getattr(gpu, name) for name in GpuResource.model_fields}

    @dg.job(resource_defs={"gpu": resource}, executor_def=dg.in_process_executor)
    def job() -> None:
        settings()

    return job


def _at_launch(config: dict[str, Any] | None, resource: GpuResource | None = None) -> dict[str, Any]:
    """What a run gets whose Launchpad configuration of the resource is ``config``; None is an empty Launchpad."""
    silent = {"console": {"config": {"log_level": "CRITICAL"}}}
    resources = {} if config is None else {"gpu": {"config": config}}
    run_config = {"resources": resources, "loggers": silent}
    result = _job(resource or GpuResource()).execute_in_process(run_config=run_config)
    return dict(result.output_for_node("settings"))


def _launchpad(resource: GpuResource) -> tuple[dict[str, ConfigFieldSnap], dict[str, Any]]:
    """The resource's fields as the Launchpad lists them, and what it scaffolds."""
    snapshots = _job(resource).get_job_snapshot().config_schema_snapshot.all_config_snaps_by_key.values()
    named = [{field.name: field for field in snapshot.fields or ()} for snapshot in snapshots]
    (fields,) = (fields for fields in named if "vectorized" in fields)
    (outer,) = (fields for fields in named if "gpu" in fields)
    return fields, json.loads(outer["gpu"].default_value_as_json_str or "null")["config"]


def test_the_launchpad_shows_every_field_with_its_default_and_a_description() -> None:
    fields, scaffolded = _launchpad(GpuResource())
    assert scaffolded == {
        "device": "auto",
        "batch_size": 128,
        "vectorization_batch_size": "auto",
        "vectorized": True,
        "num_workers": 8,
        "matmul_precision": "high",
        "compile_model": False,
        "memory_budget_gb": "none",
    }
    assert set(fields) == set(scaffolded)
    for name, field in fields.items():
        default = "USE_VECTORIZED_EXTRACTION" if name == "vectorized" else f"Default: {scaffolded[name]}"
        assert default in (field.description or ""), name
    assert not any(field.is_required for field in fields.values())


def test_the_launchpad_shows_the_environments_default_of_vectorized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_VECTORIZED_EXTRACTION", "false")
    assert _launchpad(GpuResource())[1]["vectorized"] is False


def test_an_old_configuration_with_some_or_empty_fields_means_the_defaults() -> None:
    assert _at_launch({"batch_size": 4, "num_workers": None, "vectorized": None}) == {
        "device": "auto",
        "batch_size": 4,
        "vectorization_batch_size": "auto",
        "vectorized": True,
        "num_workers": 8,
        "matmul_precision": "high",
        "compile_model": False,
        "memory_budget_gb": None,
    }


@pytest.mark.parametrize("value", [128, "128"])
def test_the_vectorization_batch_is_auto_or_a_number_in_either_form(value: Any) -> None:
    assert _at_launch({"vectorization_batch_size": value})["vectorization_batch_size"] == 128
    assert _at_launch({"vectorization_batch_size": "auto"})["vectorization_batch_size"] == "auto"


def test_the_memory_budget_is_none_or_a_number() -> None:
    assert _at_launch({"memory_budget_gb": "none"})["memory_budget_gb"] is None
    assert _at_launch({"memory_budget_gb": 2})["memory_budget_gb"] == 2.0


def test_fields_take_their_value_from_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_BATCH", "7")
    assert _at_launch({"batch_size": {"env": "MY_BATCH"}})["batch_size"] == 7
    assert _at_launch(None, GpuResource(batch_size=dg.EnvVar.int("MY_BATCH")))["batch_size"] == 7
    with pytest.raises(dg.DagsterInvalidConfigError, match="the environment variable NO_BATCH is not set"):
        _at_launch({"vectorization_batch_size": {"env": "NO_BATCH"}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "banana"),
        ("device", 3),
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", 1.5),
        ("num_workers", -1),
        ("memory_budget_gb", 0),
        ("memory_budget_gb", "much"),
        ("vectorization_batch_size", 0),
        ("vectorization_batch_size", -1),
        ("vectorization_batch_size", "banana"),
        ("vectorized", "perhaps"),
        ("matmul_precision", "banana"),
    ],
)
def test_a_wrong_value_is_refused_while_the_configuration_is_validated(field: str, value: Any) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match=rf"gpu:config:{field}.*{re.escape(str(value))}"):
        dg.validate_run_config(_job(GpuResource()), {"resources": {"gpu": {"config": {field: value}}}})
    with pytest.raises((ValidationError, ValueError)):
        GpuResource(**{field: value})


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


def test_a_gpu_without_a_number_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with GpuResource(device="cuda").use_device(LOGGER) as device:
        assert [device] == chosen == [torch.device("cuda", 0)]


def test_a_budget_bounds_the_automatic_batch() -> None:
    gpu = GpuResource(memory_budget_gb=0.1)
    batch = gpu.vectorization_batch(torch.device("cpu"), latent_dim=16_384, seq_len=128, logger=LOGGER)
    assert batch.size == 2  # 0.1 GiB * 0.7 / (128 * 16384 * 12 bytes = 0.0234 GiB) = 2.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the lease itself is tested without one")
def test_auto_leases_a_real_gpu_and_a_second_run_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lease, "gpu_lease_folder", lambda: tmp_path / "extraction-assets-gpus")

    def no_wait(_seconds: float) -> None:
        raise TimeoutError

    with GpuResource().use_device(LOGGER) as device:
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        with pytest.raises(TimeoutError), lease([uuid], LOGGER, tmp_path / "extraction-assets-gpus", no_wait):
            pass
