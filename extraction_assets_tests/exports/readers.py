"""The programs that exports are written for: they run in a virtual environment of their own (`make readers`)."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 120


def read_by(script: str, *arguments: str | Path, package: str) -> Any:
    """What a script prints as JSON, run by the readers' Python with ``sys.argv``; skips the test without ``package``.

    EXTRACTION_READERS may name that Python; otherwise it is the one that `make readers` installs.
    """
    python = os.environ.get("EXTRACTION_READERS", f"{sys.prefix}/readers/bin/python")
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    if not Path(python).exists() or subprocess.run([python, "-c", find], check=False).returncode:
        pytest.skip(f"{package} is not installed beside the tests: `make readers` does that")
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [python, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
