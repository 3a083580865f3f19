"""What the processes of ``run NAME --gpus N`` load in tests: the tiny extraction, and what goes wrong in one."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import torch

from extraction_assets import default_resources
from extraction_assets.cli.gpu_worker import RemoteAssignment
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests import quick_dagster
from extraction_assets_tests.daemon_lab import wait_for

MODULE = """
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.cli import several_processes

defs = several_processes.definitions(ExtractionSettings.model_validate_json('{settings}'))
"""
"""A module of definitions, for processes that find it in their working directory."""


def definitions(settings: ExtractionSettings) -> dg.Definitions:
    torch.set_num_threads(1)  # as in the process of the tests
    if "extraction_assets_tests.preloaded" in sys.modules:  # a fork; one that starts afresh has Dagster as it is
        quick_dagster.hurry()
    shared = dg.Definitions(resources=default_resources(), executor=dg.in_process_executor)
    return dg.Definitions.merge(build_definitions(settings), shared)


def with_trouble(trouble: Callable[[int], None], folder: Path, settings: ExtractionSettings) -> dg.Definitions:
    """The same; in the first process to load it, ``trouble`` gets the number of each chunk before it is begun."""
    try:
        (folder / "in trouble").mkdir(parents=True)
    except FileExistsError:
        return definitions(settings)
    numbers = iter(range(1000))

    def before(ask: Callable[..., Any], assignment: RemoteAssignment, *key: str) -> Any:
        given = ask(assignment, *key)
        if given:
            trouble(next(numbers))
        return given

    for name in ("take", "take_another"):
        ask = getattr(RemoteAssignment, name)
        setattr(RemoteAssignment, name, lambda assignment, *key, ask=ask: before(ask, assignment, *key))
    return definitions(settings)


def is_killed(number: int) -> None:
    """Over its second chunk."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def is_slow(_number: int) -> None:
    """Takes as long as five chunks of the others."""
    tables = Path(os.environ["EXTRACTION_HOME"], "tiny", "topk", "top_k_table")
    wait_for("the others", lambda: len(list(tables.glob("**/*.parquet"))) >= 5, 120, pause=0.1)


def fails(number: int) -> None:
    """Over its second chunk."""
    if number == 1:
        raise ValueError("no second chunk today")


def in_trouble(trouble: Callable[[int], None], folder: Path, settings: ExtractionSettings) -> Callable[[], Any]:
    return partial(with_trouble, trouble, folder, settings)
