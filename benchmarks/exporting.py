"""How many examples a second each export writes, and how much memory it takes, at small and large results.

    python -m benchmarks.exporting [--features 4096 131072] [--formats jsonl neuronpedia] [--folder FOLDER]

Makes a SQLite database of made-up results with 100 examples of 128 tokens a feature (13 million at 131,072 features: 2
GB, a few minutes; ``--examples`` makes it fewer), or takes ``results-N.sqlite`` of the folder, and exports all of it,
each format in a process of its own. An example counts once, whether it is among the strongest or drawn. Peak memory is
the largest resident size that the kernel saw of that process; what it had before the export, libraries mostly, stands
beside it.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.browsing_results import EXAMPLES, NAME, SAE, Sizes, make_results
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.read_only import read_database
from extraction_assets.exports.folders import LocalFolder
from extraction_assets.exports.formats import FORMATS
from extraction_assets.exports.formats import export_format as load_format
from extraction_assets.exports.source import ExportSource
from extraction_assets.exports.write_export import export

_SAMPLES = 50_000
_WITH_STORED_FEATURES = ("delphi",)
"""Formats that made-up results have no files for."""


class Line(NamedTuple):
    """One export of everything."""

    format: str
    features: int
    examples: int
    seconds: float
    cpu_seconds: float
    megabytes: float
    """Of the files."""
    before_mib: float
    """Peak memory before the export."""
    peak_mib: float

    @property
    def examples_per_second(self) -> float:
        return self.examples / self.seconds


class _Counted:
    """Shows nothing."""

    def __call__(self, count: int) -> None:
        """So many features are written."""

    def skip(self, count: int) -> None:
        """So many were there."""


def measure(database: Path, export_format: str, folder: Path, features: int) -> Line:
    """Exports everything of the made-up results, in this process."""
    with read_database(f"sqlite:///{database}") as engine, engine.connect() as connection:
        source = ExportSource(connection, find_extraction(connection, NAME, SAE))
        examples = _count_examples(source)
        before, started, cpu = _peak_mib(), time.perf_counter(), time.process_time()
        options = {"layer": "0"} if "layer" in load_format(export_format).OPTIONS else {}
        export(source, export_format, LocalFolder(folder), _Counted(), options)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Line(export_format, features, examples, seconds, cpu, size / 1e6, before, _peak_mib())


def _count_examples(source: ExportSource) -> int:
    lists = (("feature_example_lists", "examples"), ("feature_draw_lists", "draws"))
    return sum(
        int(
            source.connection.exec_driver_sql(
                f"SELECT coalesce(sum(json_array_length({column})), 0) FROM {table} WHERE extraction_id = ?",
                (source.extraction.id,),
            ).scalar_one()
        )
        for table, column in lists
    )


def _peak_mib() -> float:
    """Of this program alone: ``ru_maxrss`` begins with what the program had that started it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(float(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def _in_a_process(database: Path, export_format: str, folder: Path, features: int) -> Line:
    arguments = ["--one", str(database), export_format, str(folder), str(features)]
    command = [sys.executable, "-m", "benchmarks.exporting", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Line(*json.loads(done.stdout))


def main() -> None:
    """Prints a line for each format and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[4096, 131_072])
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of a feature; fewer make a shorter run")
    parser.add_argument("--formats", nargs="+", default=[one for one in FORMATS if one not in _WITH_STORED_FEATURES])
    parser.add_argument("--folder", type=Path, help="where results are made or taken from, and files written")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        database, export_format, folder, features = options.one
        print(json.dumps(measure(Path(database), export_format, Path(folder), int(features))))
        return
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
        print("| format | features | examples/s | seconds | CPU s | MB | MiB before | MiB at most |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for features in options.features:
            few = f"-{options.examples}" if options.examples != EXAMPLES else ""
            database = folder / f"results-{features}{few}.sqlite"
            if not database.is_file():
                make_results(database, Sizes(features, _SAMPLES, options.examples))
            for export_format in options.formats:
                out = folder / f"{export_format}-{features}"
                line = _in_a_process(database, export_format, out, features)
                shutil.rmtree(out)
                print(
                    f"| `{line.format}` | {line.features:,} | {line.examples_per_second:,.0f} | "
                    f"{' | '.join(f'{number:,.0f}' for number in line[3:])} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
