"""The seed of all that is random in the tests: ``pytest --seed N`` repeats what ``--seed random`` has drawn."""

import functools
import os
import random
import zlib

import pytest

_VARIABLE = "EXTRACTION_TESTS_SEED"
"""By it the workers of pytest-xdist learn the seed that their controller has drawn."""


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--seed", default="0", help="seed of random tests: a whole number (0), or random for a new one")


def choose(config: pytest.Config) -> None:
    """Settles the seed of this session, also for Hypothesis: with 0 its examples follow from each test's own code."""
    asked = config.getoption("--seed")
    if asked == "random":
        asked = os.environ.setdefault(_VARIABLE, str(random.SystemRandom().randrange(1, 2**32)))
    if not asked.isdecimal():
        raise pytest.UsageError(f"--seed takes a whole number or random, got {asked!r}")
    config.option.seed = int(asked)
    import hypothesis

    hypothesis.settings.register_profile("suite", deadline=None, derandomize=not config.option.seed, print_blob=False)
    hypothesis.settings.load_profile("suite")
    if config.option.seed and config.getoption("--hypothesis-seed") is None:
        hypothesis.core.global_force_seed = config.option.seed


def of_test(node: pytest.Item) -> int:
    """A seed that follows from the session's and the test's name, whatever ran before it."""
    return zlib.crc32(node.nodeid.encode(), int(node.config.getoption("--seed")))


def start(seed: int) -> None:
    """Sets the generators that a test may use without naming one."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    if _has_gpu():
        torch.manual_seed(seed)
    else:  # the same without a millisecond for each kind of device, of which torch notes who asked to seed it
        torch.default_generator.manual_seed(seed)


@functools.cache
def _has_gpu() -> bool:
    import torch

    return torch.accelerator.is_available()


def said(config: pytest.Config) -> str:
    return f"random tests: --seed {config.getoption('--seed')}"
