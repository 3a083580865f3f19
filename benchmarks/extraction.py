"""``python -m benchmarks.extraction``: measures an extraction, part by part and as a whole."""

import gc
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.backfill_path import backfill_path
from benchmarks.ceilings import ceilings
from benchmarks.daemon_path import daemon_path
from benchmarks.dagster_path import dagster_path
from benchmarks.gpus_path import gpus_path
from benchmarks.inputs import load_engine, make_checkpoints
from benchmarks.lines import Line
from benchmarks.many_saes import many_saes
from benchmarks.options import DAGSTER_STAGES, ENGINE_STAGES, Options, parse_options
from benchmarks.report import Figures, as_json, as_markdown, conditions
from benchmarks.shared_resources import shared_resources
from benchmarks.stages import Stages


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 1 if a stage failed or the engine does not equal the legacy loop."""
    options = parse_options(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    figures = Figures(options, conditions(options), [])
    with tempfile.TemporaryDirectory(prefix="extraction-benchmark-", dir=options.folder) as name:
        for _ in _measure(options, Path(name), figures):
            if options.json:  # after every stage, so that an interrupted benchmark leaves its results
                options.json.write_text(json.dumps(as_json(figures), indent=1))
    print(as_markdown(figures))
    return 0 if figures.ok else 1


def _measure(options: Options, folder: Path, figures: Figures) -> Iterator[None]:
    """Runs the requested stages, and adds what they measure to ``figures``; yields after each."""
    if "ceilings" in options.only:
        _attempt(figures, "ceilings", partial(ceilings, options, folder))
        yield
    if set(options.only) - {"ceilings"}:
        _say("making model and SAE")
        make_checkpoints(folder, options)
    if set(options.only) & set(ENGINE_STAGES):
        stages = Stages(options, load_engine(folder, options))
        figures.conditions["features_per_token"] = features = stages.features_per_token()
        _say(f"{features:.1f} features fire on a token")
        for stage in ENGINE_STAGES:
            if stage in options.only:
                _attempt(figures, stage, getattr(stages, stage))
                yield
        del stages  # the run through Dagster loads its own
    if "saes" in options.only:
        _attempt(figures, "saes", partial(many_saes, options, folder))
        yield
    for stage in DAGSTER_STAGES:
        for count in options.samples if stage in options.only else ():
            keep = stage == "dagster-activations"
            _attempt(figures, stage, partial(dagster_path, options, folder, count, keep_activations=keep))
            yield
    if "daemon" in options.only:
        _attempt(figures, "daemon", partial(daemon_path, options, folder, min(options.samples)))
        yield
    if "gpus" in options.only:
        for number, count in enumerate(options.samples):
            _attempt(figures, "gpus", partial(gpus_path, options, folder, count, compiled=number > 0))
            yield
    if "backfill" in options.only:
        _attempt(figures, "backfill", partial(backfill_path, options, folder, min(options.samples)))
        yield
    if "shared" in options.only:
        _attempt(figures, "shared", partial(shared_resources, options, folder))
        yield


def _attempt(figures: Figures, stage: str, run: Callable[[], Iterator[Line]]) -> None:
    """Adds a stage's lines; a failed stage is a line too, and the others continue."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    started = time.perf_counter()
    try:
        for line in run():
            figures.lines.append(line)
            figure = line.notes if line.value is None else f"{line.value:,.4g} {line.unit}"
            _say(f"{line.name}: {figure}")
    except Exception as error:
        traceback.print_exc()
        figures.lines.append(Line(stage, stage, notes={"error": f"{type(error).__name__}: {error}"}, failed=True))
    _say(f"{stage} took {time.perf_counter() - started:.1f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
