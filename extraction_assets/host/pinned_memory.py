"""How torch pins the memory of the host that a GPU copies to."""

import os

VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Both hold torch's settings of memory; the first is torch's newer name, which older versions do not know."""

_CHOICE = "pinned_use_cuda_host_register"
_SETTINGS = f"{_CHOICE}:True,pinned_num_register_threads:8"


def pin_beside_the_driver() -> None:
    """Has torch make the pages of pinned memory itself, in threads, before CUDA registers them. Call it before the
    process uses a GPU.

    While CUDA makes them, no kernel of another thread starts: for 0.5 s a GB on an H100, this way for 0.05 s
    (benchmarks/RESULTS.md). What a user has set stays.
    """
    variable = next((name for name in VARIABLES if name in os.environ), VARIABLES[-1])
    before = os.environ.get(variable, "")
    if _CHOICE not in before:
        os.environ[variable] = f"{before},{_SETTINGS}" if before else _SETTINGS
