"""Where compiled kernels are kept, so that a machine compiles each of them once."""

import os
from pathlib import Path

from extraction_assets.host.locations import extraction_home

CACHE_FOLDER = ".compiled"
"""In the extraction home; may be removed at any time."""

_VARIABLES = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
"""Environment variable of Triton and of torch's compiler -> folder of its cache. Both name what they keep by GPU,
version and source, so that hosts and versions may share the folders."""


def keep_compiled_kernels() -> None:
    """Lets Triton and torch keep what they compile in the extraction home. Call it before the first kernel.

    A variable that is set stays, and where nothing can be written the libraries' own folders remain.
    """
    folder = extraction_home() / CACHE_FOLDER
    for variable, name in _VARIABLES.items():
        if variable not in os.environ and _is_writable(folder / name):
            os.environ[variable] = str(folder / name)


def _is_writable(folder: Path) -> bool:
    """Whether this user can make files in a folder, which is made if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
