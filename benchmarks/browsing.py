"""How long each page of the browser takes, at small and large results.

    python -m benchmarks.browsing [--features 4096 131072] [--repeats 5] [--folder FOLDER] [--postgres URL] [--parquet]

Makes a SQLite database of made-up results with 100 examples a feature (13 million at 131,072 features: 2 GB, a few
minutes), serves it on loopback, and reads every page and its JSON twin by HTTP. A line is the median of ``repeats``
requests after one that nobody counts; the largest of them stands beside it. With the URL of an empty PostgreSQL
database the results, of one size then, are copied there and read from it; with ``--parquet`` they are copied to
Parquet files and read from these as well.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from benchmarks.browsing_copy import copy_to_parquet, copy_to_postgresql
from benchmarks.browsing_results import FREQUENT, NAME, RARE_WORD, SAE, Sizes, make_results
from extraction_assets.browser.app import create_app
from extraction_assets.browser.server import listen
from extraction_assets.database.connect import opened_database
from extraction_assets.database.read_only import read_database

GOAL_MS = 100


class Line(NamedTuple):
    """A page and how long it takes."""

    page: str
    features: int
    html_ms: float
    html_worst_ms: float
    json_ms: float
    cpu_ms: float
    """Processor time of the HTML, server and client: what it would take on a core of its own."""
    kilobytes: float


def pages(sizes: Sizes) -> dict[str, str]:
    """Addresses by what they are."""
    at, frequent = f"/{NAME}/{SAE}/", quote(FREQUENT)
    middle = sizes.features // 2
    return {
        "extractions": "/",
        "features": at,
        "features, sorted by density": f"{at}?sort=density",
        "features, by number, from the middle on": f"{at}?sort=number&after=:{middle}",
        "features, a page deep in the order of the maximum": f"{at}?after=8.0:0",
        "features, of one power of ten of density": f"{at}?min_density=0.0001&max_density=0.001",
        "features, of a region": f"{at}?min_density=0.0003&max_density=0.004&min_maximum=5&max_maximum=20",
        "features, by mean and deviation": f"{at}?min_mean=2&max_std=1.5&sort=std",
        "features, with a flag": f"{at}?flag=one_token",
        "features, with two flags and a label": f"{at}?flag=one_token&flag=duplicate&label=labelled",
        "search: a rare token": f"{at}?q=w4321&by=token",
        "search: the frequent token, by its firings": f"{at}?q={frequent}&by=token",
        "search: the frequent token, by maximum": f"{at}?q={frequent}&by=token&sort=maximum",
        "search: a rare text": f"{at}?q={RARE_WORD}&by=text",
        "search: a frequent text": f"{at}?q={quote('the')}&by=text",
        "search: a label": f"{at}?q=label&by=label",
        "a feature": f"{at}{middle}",
        "a sample": f"{at}samples/16",
        "a document": f"{at}documents?id={quote('document 2')}",
        "two features": f"/compare?a={NAME}/{SAE}/1&b={NAME}/{SAE}/2",
    }


def measure(port: int, page: str, address: str, sizes: Sizes, repeats: int) -> Line:
    """One page and its twin."""
    path, _, query = address.partition("?")
    twin = f"{path}.json" + (f"?{query}" if query else "")
    html, cpu, size = _times(port, address, repeats)
    twins, *_ = _times(port, twin, repeats)
    median = statistics.median
    return Line(page, sizes.features, median(html), max(html), median(twins), median(cpu), size / 1000)


def _times(port: int, address: str, repeats: int) -> tuple[list[float], list[float], int]:
    """Milliseconds of each request, those of the processor, and the answer's bytes. RuntimeError if it is no page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times, cpu, size = list[float](), list[float](), 0
    for _ in range(repeats + 1):
        began, busy = time.perf_counter(), time.process_time()
        connection.request("GET", address)
        answer = connection.getresponse()
        size = len(answer.read())
        times.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - busy))
        if answer.status != 200:
            raise RuntimeError(f"{address} answers {answer.status}")
    connection.close()
    return times[1:], cpu[1:], size


@contextlib.contextmanager
def serving(url: str) -> Iterator[int]:
    """The browser in a thread of this process; its port."""
    import uvicorn

    app = create_app(partial(read_database, url), None, partial(opened_database, url))
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    with listen() as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        server.should_exit = True
        thread.join(timeout=10)


def run(sizes: Sizes, folder: Path, repeats: int, postgres: str | None = None, *, parquet: bool = False) -> list[Line]:
    """All pages at one size, from SQLite, from the empty PostgreSQL database of a URL, or from Parquet files."""
    path = folder / f"results-{sizes.features}.sqlite"
    if not path.exists():
        began = time.perf_counter()
        make_results(path, sizes)
        print(f"{sizes.features:,} features, {sizes.examples:,} examples: {path.stat().st_size / 1e9:.1f} GB", end="")
        print(f" in {time.perf_counter() - began:.0f} s", flush=True)
    if postgres is not None:
        began = time.perf_counter()
        copy_to_postgresql(path, postgres)
        print(f"copied to PostgreSQL in {time.perf_counter() - began:.0f} s", flush=True)
    files = folder / f"parquet-{sizes.features}"
    if parquet and not files.exists():
        began = time.perf_counter()
        copy_to_parquet(path, f"parquet:///{files}")
        size = sum(file.stat().st_size for file in files.glob("*/*"))
        print(f"copied to {size / 1e9:.2f} GB of Parquet in {time.perf_counter() - began:.0f} s", flush=True)
    with serving(postgres or (f"parquet:///{files}" if parquet else f"sqlite:///{path}")) as port:
        return [measure(port, page, address, sizes, repeats) for page, address in pages(sizes).items()]


def main(arguments: list[str] | None = None) -> list[Line]:
    """Measure and print; returns the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[4_096, 131_072])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keeps the databases, and reads those that are there")
    parser.add_argument("--postgres", metavar="URL", help="an empty database; takes one of --features")
    parser.add_argument("--parquet", action="store_true", help="from Parquet files too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.postgres and len(options.features) > 1:
        parser.error("--postgres takes one number of --features: an extraction of each size would be the same one")
    lines, others = list[Line](), list[Line]()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for features in options.features:
            lines += run(Sizes(features, options.samples), folder, options.repeats, options.postgres)
            if options.parquet:
                others += run(Sizes(features, options.samples), folder, options.repeats, parquet=True)
    _print(lines)
    if others:
        print("\nfrom Parquet files:")
        _print(others)
    if options.json:
        options.json.write_text(json.dumps([line._asdict() for line in lines], indent=1))
    return lines


def _print(lines: list[Line]) -> None:
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{platform.machine()}, {load}; Python {platform.python_version()}")
    columns = ("page", "features", "HTML, ms", "the slowest", "JSON, ms", "CPU, ms", "kB")
    print(f"| {' | '.join(columns)} |\n| --- |{' ---: |' * (len(columns) - 1)}")
    for line in lines:
        print(f"| {line.page} | {line.features:,} | {' | '.join(f'{number:.0f}' for number in line[2:])} |")
    slow = [f"{line.page} ({line.features:,})" for line in lines if line.cpu_ms > GOAL_MS]
    print(f"more than {GOAL_MS} ms of a processor: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
