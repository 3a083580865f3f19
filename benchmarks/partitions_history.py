"""An extraction of many chunks and SAEs whose engine is simulated, and its history in PostgreSQL.

Everything that Dagster sees is real: definitions, plan, files, events with their tags and metadata. The engine's place
is taken by tables of one example, so that a chunk costs what it costs to store and record it; files and events of most
chunks are copies of one's.
"""

import csv
import hashlib
import io
import json
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa
import torch

from benchmarks.inputs import make_checkpoints, random_corpus, store_corpus
from benchmarks.options import Options, parse_options
from extraction_assets.assets.chunks import step
from extraction_assets.assets.chunks.checks import CHUNK_CHECKS, CHUNK_WARNINGS, chunk_evaluation
from extraction_assets.assets.chunks.finish import FinishedChunk, WrittenFile
from extraction_assets.assets.chunks.run import ChunkRun, Event
from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.engine.shapes import TopKTable
from extraction_assets.engine.statistics.accumulate import DTYPES
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics
from extraction_assets.execution.keys import Target, sae_key
from extraction_assets.execution.lineage import data_version
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk, ExtractionSettings
from extraction_assets.stores.chunk_files import write_table
from extraction_assets.stores.chunk_names import STATISTICS_FILE, companion_path
from extraction_assets.stores.sealed import PLACEHOLDER

EXTRACTION, FEATURES, POSITIONS = "many", 16, 4
_SHAPE = "--blocks 1 --width 16 --heads 2 --key-value-heads 2 --head-size 8 --intermediate 16 --vocabulary 64"
_PART = 500
"""Chunks whose events are copied at a time."""
_RUN_CHUNKS = 100
"""Chunks of a copied run."""


def tiny_options() -> Options:
    """The smallest model, SAE and samples that the readers of checkpoints take."""
    sizes = f"--positions {POSITIONS} --latent-dim {FEATURES} --features-per-token 2 --chunk-size 1 --device cpu"
    return parse_options(f"{_SHAPE} {sizes}".split())


def make_inputs(folder: Path, home: Path, chunks: int, saes: int) -> ExtractionSettings:
    """Model, SAEs and a corpus of a sample a chunk; the settings of the extraction."""
    options = tiny_options()
    make_checkpoints(folder, options)
    paths = {f"sae_{number:02}": folder / f"sae_{number:02}" for number in range(saes)}
    for path in paths.values():
        shutil.copytree(folder / "sae", path)
    settings = ExtractionSettings.model_validate(
        {
            "name": EXTRACTION,
            "language_model": {"path": str(folder / "model")},
            "corpus": {"source": str(folder / "source.txt"), "max_length": POSITIONS},
            "saes": {name: {"path": str(path), "hook": options.hook} for name, path in paths.items()},
            "evaluation_samples": chunks,
            "chunk_size": 1,
            "schedule": "0 2 * * *",
            "statistics": "basic",
            "keep": {"model_activations": False, "sae_features": False},
        }
    )
    store_corpus(settings, random_corpus(chunks, options), home)
    return settings


class SimulatedRun(ChunkRun):
    """A run of chunks that stores and records tables of one example: events, tags and lineage are the package's."""

    def events(self, chunks: Sequence[Chunk], *, reuse: bool = False) -> Iterator[Event]:
        """The events of each chunk once its files are durable. ``reuse`` makes no difference: nothing is computed."""
        for chunk in chunks:
            written = [self._written(target, chunk) for target in self._targets]
            checks = {**CHUNK_CHECKS, **CHUNK_WARNINGS}
            evaluations = [
                chunk_evaluation(target.key, name, chunk.key, True, {"mean_l0": 2.0})
                for target in self._targets
                for name in checks
            ]
            for make in self._events(chunk, FinishedChunk(written, evaluations)):
                yield make()

    def _written(self, target: Target, chunk: Chunk) -> WrittenFile:
        """A stored table with metadata as those of a real one."""
        path = write_tiny_table(self._plan, str(target.sae), chunk)
        times = dict.fromkeys(("seconds", "seconds_forward", "seconds_encode", "seconds_select", "seconds_write"), 0.5)
        counts = dict.fromkeys(("samples", "tokens", "bytes", "batch_size", "examples", "features_firing"), 1)
        rates = dict.fromkeys(("samples_per_second", "tokens_per_second", "mean_l0", "variance_explained"), 1.5)
        fingerprint = self._plan.fingerprint_of(target.asset, chunk, target.sae)
        place = {"path": dg.MetadataValue.path(str(path)), "fingerprint": fingerprint}
        return WrittenFile(target, {**times, **counts, **rates, **place})


def use_simulated_engine() -> None:
    """From here on, runs of this process simulate the engine."""
    step.ChunkRun = SimulatedRun  # type: ignore[misc]


def write_tiny_table(plan: ExtractionPlan, sae: str, chunk: Chunk) -> Path:
    """The table of a chunk with one example of one feature, as durable as any."""
    one, value = torch.zeros(1, dtype=torch.int64), torch.ones(1)
    table = TopKTable(one, one + chunk.first_sample, value, torch.arange(2), one, value)
    counts = {
        row.name: torch.zeros((FEATURES, row.size) if row.size else FEATURES, dtype=DTYPES[row.dtype])
        for row in STATISTICS
    }
    statistics = FeatureStatistics(**counts, samples_seen=chunk.num_samples, tokens_seen=POSITIONS)
    path = plan.path_to_write(TOP_K_TABLE, chunk, sae)
    record = {
        "fingerprint": plan.table_fingerprint(chunk, sae),
        "numerics": {"device": "none"},
        "checks": dict.fromkeys({**CHUNK_CHECKS, **CHUNK_WARNINGS}, True),
    }
    with plan.store.files.storing(path) as draft:
        write_table(draft, table, statistics, record)
    return path


def copy_tables(plan: ExtractionPlan, model: Chunk, chunks: Sequence[Chunk]) -> None:
    """Files of ``chunks`` with the bytes of those of ``model``, but for fingerprints and checksums, without waiting for
    the disk. They are whole and current for whoever looks at them; no merge takes them, for their sample is another's.
    """
    for sae in plan.settings.saes:
        path = plan.chunk_path(TOP_K_TABLE, model, sae)
        (beside,) = path.parent.glob(f"{path.stem}.*.statistics.safetensors")
        table, statistics = path.read_bytes(), beside.read_bytes()
        old, old_checksum = plan.table_fingerprint(model, sae), _SEAL.findall(statistics)[0].decode()
        for chunk in chunks:
            changes = {old: plan.table_fingerprint(chunk, sae)}
            copy, checksum = _sealed(statistics, changes)
            target = plan.path_to_write(TOP_K_TABLE, chunk, sae)
            companion_path(target, STATISTICS_FILE, checksum).write_bytes(copy)
            target.write_bytes(_sealed(table, {**changes, old_checksum: checksum})[0])


_RUN_TABLES = ("runs", "run_tags")
_PREFIX = PLACEHOLDER.rstrip("0")
_SEAL = re.compile(f"{_PREFIX}([0-9a-f]{{64}})".encode())


def _sealed(data: bytes, changes: dict[str, str]) -> tuple[bytes, str]:
    """The bytes of a file with other texts of the same length, sealed, and the checksum."""
    for old, new in changes.items():
        data = data.replace(old.encode(), new.encode())
    data = _SEAL.sub(PLACEHOLDER.encode(), data)
    checksum = hashlib.sha256(data).hexdigest()
    return data.replace(PLACEHOLDER.encode(), f"{_PREFIX}{checksum}".encode()), checksum


class _Row(NamedTuple):
    """A row of the event log or of a table beside it: column -> value."""

    values: dict[str, Any]
    asset: str
    """The asset key, as the event log has it."""


class _Chunk(NamedTuple):
    """What differs in the events of two chunks."""

    key: str
    run: str
    versions: dict[str, str]
    """Data version by asset."""


class History:
    """Copies the events of a chunk that a run has recorded, for other chunks: with their keys, data versions and event
    numbers, as if runs of 100 chunks had recorded them one after the other."""

    def __init__(self, connection: sa.Connection, plan: ExtractionPlan, model: str) -> None:
        self._connection, self._plan = connection, plan
        self._assets = {sae_key(plan.settings, sae, TOP_K_TABLE).to_string(): sae for sae in plan.settings.saes}
        ran = "SELECT run_id FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND partition = :model"
        (run,) = {row["run_id"] for row in self._rows(ran, model=model)}
        self._model = self._chunk(model, run)
        self._run = {table: self._rows(f"SELECT * FROM {table} WHERE run_id = :run", run=run) for table in _RUN_TABLES}
        # A run's one event of what checks it plans has all of its chunks.
        kinds = ["ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION"]
        found = f"SELECT * FROM event_logs WHERE position('{model}' in event) > 0 AND dagster_event_type = ANY(:kinds)"
        self._events = [_Row(row, _asset_of(row)) for row in self._rows(f"{found} ORDER BY id", kinds=kinds)]
        self._rank = {row.values["id"]: number for number, row in enumerate(self._events)}
        made = [row for row in self._events if row.values["dagster_event_type"] == "ASSET_MATERIALIZATION"]
        self._material = {row.asset: row.values["id"] for row in made}
        ids = ", ".join(map(str, self._rank))
        self._tags = self._of_asset(f"SELECT * FROM asset_event_tags WHERE event_id IN ({ids})")
        self._checks = self._of_asset(f"SELECT * FROM asset_check_executions WHERE partition = '{model}'")

    @property
    def events(self) -> int:
        """Events of one chunk."""
        return len(self._events)

    def copy(self, keys: Sequence[str]) -> None:
        """Adds the history of the chunks ``keys``."""
        base = int(self._connection.scalar(sa.text("SELECT max(id) + 1 FROM event_logs")) or 1)
        for at in range(0, len(keys), _PART):
            runs = [self._copied_run() for _ in range(0, _PART, _RUN_CHUNKS)]
            part = enumerate(keys[at : at + _PART])
            chunks = [self._chunk(key, runs[number // _RUN_CHUNKS]) for number, key in part]
            bases = [base + (at + number) * len(self._events) for number in range(len(chunks))]
            for table, rows in (
                ("event_logs", self._events),
                ("asset_event_tags", self._tags),
                ("asset_check_executions", self._checks),
            ):
                copied = [self._copied(row, *one) for one in zip(chunks, bases, strict=True) for row in rows]
                self._load(table, copied)
        for table in ("event_logs", "asset_event_tags", "asset_check_executions"):
            self._connection.execute(sa.text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))
        self._connection.execute(sa.text("ANALYZE"))

    def _copied_run(self) -> str:
        """The id of a run that is a copy of the one that is there, without the events that belong to no chunk."""
        run = str(uuid.uuid4())
        for table, rows in self._run.items():
            copies = [
                {
                    name: value.replace(self._model.run, run) if isinstance(value, str) else value
                    for name, value in row.items()
                    if name != "id"
                }
                for row in rows
            ]
            self._load(table, copies)
        return run

    def _copied(self, row: _Row, chunk: _Chunk, base: int) -> dict[str, Any]:
        material = self._material[row.asset]
        pairs = (
            (self._model.key, chunk.key),
            (self._model.run, chunk.run),
            (self._model.versions[row.asset], chunk.versions[row.asset]),
            (f'"storage_id": {material}', f'"storage_id": {base + self._rank[material]}'),
        )
        values = dict(row.values)
        for name, value in values.items():
            if isinstance(value, str):
                for old, new in pairs:
                    value = value.replace(old, new)
                values[name] = value
            elif isinstance(value, int) and value in self._rank and name != "id":
                values[name] = base + self._rank[value]
        if "event_id" in values or "check_name" in values:
            del values["id"]  # the next of its table
        else:
            values["id"] = base + self._rank[row.values["id"]]
        return values

    def _chunk(self, key: str, run: str) -> _Chunk:
        chunk = self._plan.settings.chunk(key)
        versions = {asset: data_version(self._plan, TOP_K_TABLE, sae, chunk) for asset, sae in self._assets.items()}
        return _Chunk(key, run, versions)

    def _rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._connection.execute(sa.text(query), parameters).mappings()]

    def _of_asset(self, query: str) -> list[_Row]:
        return [_Row(row, row["asset_key"]) for row in self._rows(query)]

    def _load(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text)
        for row in rows:
            writer.writerow("\\N" if value is None else value for value in row.values())
        text.seek(0)
        columns = ", ".join(rows[0])
        copy = f"COPY {table} ({columns}) FROM STDIN WITH (FORMAT csv, NULL '\\N')"
        cursor: Any = self._connection.connection.cursor()  # psycopg2's
        cursor.copy_expert(copy, text)
        cursor.close()


def _asset_of(event: dict[str, Any]) -> str:
    """The asset of an event, which the column names for materializations alone."""
    if event["asset_key"] is not None:
        return str(event["asset_key"])
    said = json.loads(event["event"])["dagster_event"]["event_specific_data"]
    return dg.AssetKey(said["asset_key"]["path"]).to_string()
