"""What tests of upkeep share."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Age = Callable[..., None]


@pytest.fixture
def age() -> Age:
    """Makes paths, and everything in them, two hours old."""

    def make_old(*paths: Path) -> None:
        then = time.time() - 7200
        for path in paths:
            for one in [*path.rglob("*"), path]:
                os.utime(one, (then, then))

    return make_old
