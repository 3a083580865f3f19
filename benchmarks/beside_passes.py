"""What a large extraction does beside its passes: tokens that are made of text, and events that Dagster writes.

    python -m benchmarks.beside_passes [--samples 40000] [--postgres URL]

Texts are those of Python's standard library, again and again until there are enough samples of 128 tokens, tokenized as
the asset `corpus` does, with the demo's tokenizer. Events are those of two runs, of a few chunks and of some more: what
the second has more of, a chunk. A chunk is two samples of the demo, so that the time of an event is its own.
"""

import argparse
import contextlib
import itertools
import os
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa
import yaml

from benchmarks.dagster_path import homes
from benchmarks.definitions import definitions
from extraction_assets import demo
from extraction_assets.cli.runner import Runner
from extraction_assets.engine.corpora.documents import Document
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.engine.corpora.tokenize import SampleStream, packing_of
from extraction_assets.engine.models.files.local_checkpoint import resolve_checkpoint
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.settings import ExtractionSettings

_CHUNKS = (5, 45)
_DEMO = Path(demo.__file__).parent


class Tokenizing(NamedTuple):
    """A corpus that was tokenized."""

    tokens: int
    seconds: float
    cpu_seconds: float
    megabytes: float
    """That the process's memory grew by, at most."""


class Recording(NamedTuple):
    """Events of a chunk."""

    what: str
    events: float
    milliseconds: float
    """Of one event."""


def settings_of(samples: int, chunk: int) -> ExtractionSettings:
    """The demo extraction, of another size."""
    return ExtractionSettings.model_validate(
        {
            "name": "beside",
            "language_model": {"path": str(_DEMO / "language_model")},
            "corpus": {"source": "standard-library", "max_length": 128},
            "saes": {"layer1": {"path": str(_DEMO / "sae"), "hook": "model.layers.1"}},
            "evaluation_samples": samples,
            "chunk_size": chunk,
        }
    )


def tokenizing(samples: int) -> Tokenizing:
    """As the asset ``corpus`` tokenizes, without writing anything."""
    settings = settings_of(samples, samples)
    tokenizer = load_tokenizer(settings, resolve_checkpoint(settings.language_model.checkpoint))
    texts = list(itertools.islice(find_source(settings.corpus).documents(), 500))
    before, began, busy = _peak_megabytes(), time.perf_counter(), time.process_time()
    stream = SampleStream(_again_and_again(texts), tokenizer, packing_of(settings.corpus), samples)
    tokens = sum(int(block.attention_mask.sum()) for block in stream.blocks())
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
    return Tokenizing(tokens, seconds, cpu_seconds, _peak_megabytes() - before)


def _again_and_again(documents: list[Document]) -> Iterator[Document]:
    for number in itertools.count():
        yield from ((f"{name} {number}", text) for name, text in documents)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def recording(postgres: str | None) -> Iterator[Recording]:
    """Events of a chunk whose table alone is recorded, and of one with activations and features too."""
    for what, keep in (("top-k tables alone", False), ("activations, features and tables", True)):
        fewer, more = (_events(chunks, keep, postgres) for chunks in _CHUNKS)
        events = (more[0] - fewer[0]) / (_CHUNKS[1] - _CHUNKS[0])
        yield Recording(what, events, 1_000 * (more[1] - fewer[1]) / (more[0] - fewer[0]))


def _events(chunks: int, keep: bool, postgres: str | None) -> tuple[int, float]:
    """How many events the run of the chunks wrote, and the seconds that it took to write them."""
    kept = {"model_activations": keep, "sae_features": keep}
    settings = ExtractionSettings.model_validate({**settings_of(2 * chunks, 2).model_dump(), "keep": kept})
    with tempfile.TemporaryDirectory() as folder, homes(folder), _own_database(postgres) as url:
        home = Path(folder) / "dagster"
        home.mkdir()
        storage = {"storage": {"postgres": {"postgres_url": url}}} if url else {}
        (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}, **storage}), "utf-8")
        os.environ["DAGSTER_HOME"] = str(home)
        with Runner(definitions(settings, {"device": "cpu"}), settings, {}) as runner:
            runner.materialize_corpus()
            with _timed_events() as seconds:
                runner.materialize_chunks(settings.chunk_keys, only_missing=True)
    return len(seconds), sum(seconds)


@contextlib.contextmanager
def _timed_events() -> Iterator[list[float]]:
    """The seconds of each event that an instance stores meanwhile."""
    seconds: list[float] = []
    store = dg.DagsterInstance.handle_new_event

    def timed(*arguments: Any, **options: Any) -> None:
        began = time.perf_counter()
        store(*arguments, **options)
        seconds.append(time.perf_counter() - began)

    dg.DagsterInstance.handle_new_event = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        dg.DagsterInstance.handle_new_event = store  # type: ignore[method-assign]


@contextlib.contextmanager
def _own_database(server: str | None) -> Iterator[str | None]:
    """The URL of an empty database on a PostgreSQL server, which is removed afterwards."""
    if server is None:
        yield None
        return
    name = f"beside_passes_{uuid.uuid4().hex}"
    url = sa.make_url(server).set(drivername="postgresql+psycopg2")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def main(arguments: list[str] | None = None) -> tuple[Tokenizing, list[Recording]]:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description="Tokens and events a second.")
    parser.add_argument("--samples", type=int, default=40_000, help="of 128 tokens, to be tokenized")
    parser.add_argument("--postgres", help="server for Dagster's events; else they go to SQLite")
    given = parser.parse_args(arguments)
    made = tokenizing(given.samples)
    print("| tokens | tokens a CPU second | CPU seconds a second | MB |\n| ---: | ---: | ---: | ---: |")
    cores = made.cpu_seconds / made.seconds
    print(f"| {made.tokens:,} | {made.tokens / made.cpu_seconds:,.0f} | {cores:.2f} | {made.megabytes:,.0f} |\n")
    print("| recorded | events a chunk | milliseconds an event |\n| --- | ---: | ---: |")
    recorded = []
    for line in recording(given.postgres):
        print(f"| {line.what} | {line.events:g} | {line.milliseconds:.1f} |", flush=True)
        recorded.append(line)
    return made, recorded


if __name__ == "__main__":
    main()
