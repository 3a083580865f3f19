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

from benchmarks.ceilings import ceilings
from benchmarks.dagster_path import dagster_path
from benchmarks.inputs import load_engine, make_checkpoints
from benchmarks.lines import Line
from benchmarks.options import DAGSTER_STAGES, ENGINE_STAGES, Options, parse_options
from benchmarks.report import as_json, as_markdown, conditions
from benchmarks.stages import Stages


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 1 where a stage failed or the engine does not equal the legacy loop."""
    options = parse_options(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with tempfile.TemporaryDirectory(prefix="extraction-benchmark-", dir=options.folder) as name:
        lines, features_per_token = _measure(options, Path(name))
    found, ok = conditions(options, features_per_token), not any(line.failed for line in lines)
    print(as_markdown(found, lines))
    if options.json:
        options.json.write_text(json.dumps(as_json(found, lines, ok), indent=1))
    return 0 if ok else 1


def _measure(options: Options, folder: Path) -> tuple[list[Line], float | None]:
    lines: list[Line] = []
    features_per_token = None
    if "ceilings" in options.only:
        lines += _attempt("ceilings", lambda: ceilings(options, folder))
    if set(options.only) - {"ceilings"}:
        _say("making model and SAE")
        make_checkpoints(folder, options)
        stages = Stages(options, load_engine(folder, options))
        features_per_token = stages.features_per_token()
        _say(f"{features_per_token:.1f} features fire on a token")
        for stage in ENGINE_STAGES:
            if stage in options.only:
                lines += _attempt(stage, getattr(stages, stage))
        del stages  # the run through Dagster loads its own
    for stage in DAGSTER_STAGES:
        for count in options.samples if stage in options.only else ():
            keep = stage == "dagster-activations"
            lines += _attempt(stage, partial(dagster_path, options, folder, count, keep_activations=keep))
    return lines, features_per_token


def _attempt(stage: str, run: Callable[[], Iterator[Line]]) -> list[Line]:
    """A stage's lines; one that fails is a line too, and the others go on."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    lines: list[Line] = []
    started = time.perf_counter()
    try:
        for line in run():
            lines.append(line)
            figure = line.notes if line.value is None else f"{line.value:,.4g} {line.unit}"
            _say(f"{line.name}: {figure}")
    except Exception as error:
        traceback.print_exc()
        lines.append(Line(stage, stage, notes={"error": f"{type(error).__name__}: {error}"}, failed=True))
    _say(f"{stage} took {time.perf_counter() - started:.1f} s")
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
