"""The order of tests, their options, and what is known of each before it runs. Fixtures are in ``fixtures.py``."""

import contextlib
import functools
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.logging import catching_logs

from extraction_assets_tests import forked_workers, processes, seeds

gc.disable()  # until all tests are collected


def pytest_addoption(parser: pytest.Parser) -> None:
    seeds.add_option(parser)
    parser.addoption("--ui", action="store_true", help="also run the tests that drive a browser")
    parser.addoption("--screenshots", default="build/screenshots", help="folder of the browser tests' screenshots")


def pytest_configure(config: pytest.Config) -> None:
    seeds.choose(config)
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        # Not where pytest-xdist starts workers: it runs no test, and they wait for it.
        config.pluginmanager.import_plugin("extraction_assets_tests.fixtures")
    if not hasattr(config, "workerinput"):
        shared = tempfile.TemporaryDirectory(prefix="forks-")
        config.add_cleanup(shared.cleanup)
        os.environ[processes.STORAGE] = shared.name  # which workers inherit
        if getattr(config.option, "numprocesses", None):
            os.environ[processes.SHARED] = shared.name
            if forked_workers.can_fork():
                forking = contextlib.ExitStack()
                config.stash[_INTERPRETER] = forking.enter_context(
                    forked_workers.server(Path(shared.name), config.invocation_params.args)
                )
                config.add_cleanup(forking.close)
            if not config.getoption("markexpr") and not config.getoption("keyword"):
                processes.forks()  # which some test will need: beside the collection a core is idle


_INTERPRETER = pytest.StashKey[str]()
"""The command of a worker, where workers are forked."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    for spec in specs:
        spec.python = config.stash.get(_INTERPRETER, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(seeds.said(config))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without --ui the tests that drive a browser are not even imported: they need packages of their own."""
    return True if collection_path == Path(__file__).with_name("ui") and not config.getoption("--ui") else None


_WHOLE_RUNS = {
    "completed_once",
    "demo_home",
    "done",
    "hostile_project",
    "lab",
    "merged_once",
    "on_postgres",
    "packed",
    "project",
    "ran",
    "served",
    "workshop",
}
"""Fixtures behind which a whole extraction or a real process runs: what uses one is slow."""

MANY_SECONDS = {
    "assets/directions/test_asset.py",
    "assets/directions/test_automation.py",
    "assets/examples/test_chunk_tables.py",
    "assets/examples/test_draws.py",
    "assets/report/test_record.py",
    "browser/test_features_page.py",
    "dagster_instance/test_home.py",
    "dagster_instance/test_ray_launcher.py",
    "database/backends/test_parquet.py",
    "database/test_feature_list.py",
    "database/test_labels.py",
    "database/test_lists_migration.py",
    "database/test_queries.py",
    "database/test_table_dependents.py",
    "database/writing/test_feature_relations.py",
    "database/writing/test_replacing.py",
    "database/writing/test_sample_messages.py",
    "database/writing/test_text_index.py",
    "defs_yaml/test_folder.py",
    "defs_yaml/test_templates.py",
    "engine/chunk_pass/test_batch_size_changes_no_bit.py",
    "engine/chunk_pass/test_last_bits.py",
    "engine/directions/test_stream.py",
    "engine/directions/test_unembedding.py",
    "engine/hub/test_download.py",
    "engine/models/hooks/test_hooks.py",
    "engine/models/hooks/test_hooks_of_loaders.py",
    "engine/models/hooks/test_published_hooks.py",
    "engine/models/hooks/test_transformer_lens.py",
    "engine/models/test_lengths.py",
    "engine/models/test_names.py",
    "engine/models/weights/test_loaded_weights.py",
    "engine/models/weights/test_unused_keys.py",
    "engine/selection/test_draws.py",
    "engine/selection/test_sparse.py",
    "exports/test_parquet.py",
    "python_api/test_activations.py",
    "python_api/test_extract.py",
    "python_api/test_frames.py",
    "test_processes.py",
}
"""Files of quick tests that take seconds together, such as one test for each family of models: slow too."""

FIRST = (
    "test_demo.py",
    "test_ray.py",  # half of its time waits
    "cli/test_healing.py",
    "cli/test_cli.py",
    "kills/test_random_moments.py",  # mostly waits
    "upkeep/test_clean.py",
    "test_benchmarks.py",  # half of its time waits
    "upkeep/test_delete.py",
    "execution/test_failures.py",
    "kills/test_schedule.py",  # mostly waits
    "execution/test_lineage.py",
    "assets/examples/test_asset.py",
    "cli/test_gpu_processes.py",
    "kills/test_cancel.py",  # mostly waits
    "execution/test_damage.py",
    "assets/relations/test_asset.py",
    "kills/test_backfill.py",  # mostly waits
    "assets/chunks/test_asset.py",
    "early_checks/test_extraction.py",
    "cli/test_ui.py",
    "test_postgres.py",
    "early_checks/test_batch.py",
    "test_hub.py",
    "assets/corpus/test_asset.py",
    "defs_yaml/test_folder.py",
    "assets/chunks/test_gemma_3.py",
    "cli/test_check.py",
    "planning/test_changes.py",
    "engine/models/test_independence.py",
    "engine/models/weights/test_unused_keys.py",
    "planning/test_plan.py",
    "ui/test_ui.py",  # makes the results that the other tests in Chromium read
)
"""Files in the order in which workers take them. One worker in three may wait for a daemon while two compute, so that
between two files that wait there are others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, the longest before all others, so that no worker is left alone with one at the end."""
    for item in items:
        if _file(item.path) in MANY_SECONDS or _WHOLE_RUNS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_number(item.path), item.path not in slow))


@functools.cache
def _file(path: Path) -> str:
    return os.path.relpath(path, Path(__file__).parent)


@functools.cache
def _number(path: Path) -> int:
    """Of a file in ``FIRST``; those that it does not name come after it."""
    return FIRST.index(_file(path)) if _file(path) in FIRST else len(FIRST)


def pytest_collection_finish() -> None:
    """Leave what is there by now out of every garbage collection, each of which would look at a million objects: tests
    that run out of memory on purpose collect at every halving."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(processes.OBJECTS_BEFORE_GARBAGE)
    _let_loggers_propagate()


_MANY_MODULES = 100


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The same after each file, of what it has imported and cached; its fixtures and its garbage are gone by then. And
    within a file, once a test has imported much: every directions run collects, in 0.07 seconds of CPU."""
    global _modules
    yield
    if nextitem is not None and (nextitem.path != item.path or len(sys.modules) > _modules + _MANY_MODULES):
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)


_modules = len(sys.modules)
"""Those that were imported when garbage was last collected here."""


def _let_loggers_propagate() -> None:
    """pytest hands two handlers to each logger that does not, three times a test, and torch has sixty of them."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch.") and isinstance(logger, logging.Logger):
            logger.propagate = True


def _catch(catching: Any) -> logging.Handler:
    """As pytest's own, which calls two functions for each of a thousand loggers, six times a test: 7 seconds in all."""
    root = logging.root
    loggers = [one for one in root.manager.loggerDict.values() if not getattr(one, "propagate", True)]
    catching.attached_loggers += [root, *loggers]
    for logger in catching.attached_loggers:
        logger.addHandler(catching.handler)
    if catching.level is not None:
        catching.handler.setLevel(catching.level)
        catching.orig_level = root.level
        root.setLevel(min(catching.orig_level, catching.level))
    handler: logging.Handler = catching.handler
    return handler


catching_logs.__enter__ = _catch  # type: ignore[method-assign]
