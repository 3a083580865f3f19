"""Whether Ray gave a process its GPUs, by the environment of a job."""

import pytest

from extraction_assets.host.ray_gpus import gpus_given_by_ray

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
UNTOUCHED = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({"CUDA_VISIBLE_DEVICES": "3"}, None),  # a user's
        (JOB | {"CUDA_VISIBLE_DEVICES": "3"}, "3"),
        (JOB | {"CUDA_VISIBLE_DEVICES": "0,2"}, "0,2"),
        (JOB | {"CUDA_VISIBLE_DEVICES": ""}, None),
        (JOB, None),
        (JOB | {"CUDA_VISIBLE_DEVICES": "3", UNTOUCHED: "1"}, None),  # the node's: this job asked for nothing
        (JOB | {"CUDA_VISIBLE_DEVICES": "3", UNTOUCHED: "0"}, "3"),
    ],
)
def test_ray_gave_the_gpus_that_it_set_for_a_job(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], given: str | None
) -> None:
    for name in (*JOB, "CUDA_VISIBLE_DEVICES", UNTOUCHED):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert gpus_given_by_ray() == given
