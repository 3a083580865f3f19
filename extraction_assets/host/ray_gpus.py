"""The GPUs that Ray gives a job: Ray counts those of its cluster, and names a job's in ``CUDA_VISIBLE_DEVICES``."""

import os

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for the command of every job."""

_UNTOUCHED = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
"""Environment variable by which Ray leaves ``CUDA_VISIBLE_DEVICES`` as it is on the node: so it does for a job that
asks for no resources at all, which sees every GPU of its node and was given none."""


def gpus_given_by_ray() -> str | None:
    """``CUDA_VISIBLE_DEVICES`` as Ray set it for the job that this process belongs to, such as ``3``; None outside of
    Ray, and in a job that asked for no GPU."""
    if _JOB not in os.environ or os.environ.get(_UNTOUCHED, "").lower() in ("1", "true"):
        return None
    return os.environ.get("CUDA_VISIBLE_DEVICES") or None
