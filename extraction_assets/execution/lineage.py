"""Code and data versions: what Dagster compares to say that a chunk or a merge is stale.

A code version is a hash of the settings that an asset's content depends on, its own and those upstream: Dagster
looks one step upstream only, and at no step with 100 partitions or more. It shows which *settings* have changed, as
far as that is known when definitions load, without reading whole checkpoints. Whether a file is current is decided by
its fingerprint (``ExtractionPlan.chunk_state``), which covers every byte.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.catalog import (
    CORPUS,
    MODEL_ACTIVATIONS,
    SAE_FEATURES,
    TOP_K_TABLE,
    Asset,
    ChunkAsset,
    asset_row,
    names,
)
from extraction_assets.dagster_instance.private_names import AssetCheckEvaluationTargetMaterializationData
from extraction_assets.engine.saes.formats import SaePlace, files_beside, files_on_hub
from extraction_assets.engine.saes.located_checkpoint import sae_place
from extraction_assets.engine.saes.named import is_local, named_sae
from extraction_assets.execution.keys import asset_key, corpus_key
from extraction_assets.planning.asset_fields import values_in_code_version
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk, ExtractionSettings, SaeSettings
from extraction_assets.stores.fingerprints import fingerprint, raised_versions

_POINTERS_SECONDS = 10.0
_NO_EVENT = "NULL"
"""What Dagster writes into a tag in place of a storage id."""
_END_BYTES = 1 << 16
"""Bytes at either end of a checkpoint's files that show whether it was replaced: header and last weights."""

_KINDS_OF_PART = {
    "tokenizer": ("tokenizer",),
    "hooks": ("hook_output", "model"),
    "activations": ("hook_output", "model"),
    "sae": ("sae",),
    "features": (SAE_FEATURES,),
    "model": ("model",),
    "other_saes": ("sae",),
    "display": ("tokenizer",),
}
"""Part of the fingerprint of the corpus, a chunk asset or one of weights alone -> kinds whose version is in it, beside
the asset's kind."""


_looked_at: ContextVar[dict[Any, Any] | None] = ContextVar("looked_at", default=None)
"""Inside ``each_checkpoint_once``, the identities of the checkpoints that were looked at."""


@contextmanager
def each_checkpoint_once() -> Iterator[None]:
    """Inside the block a checkpoint is looked at once, however many code versions it is part of: with 30 SAEs that was
    60% of the time in which their assets are declared."""
    before = _looked_at.set({})
    try:
        yield
    finally:
        _looked_at.reset(before)


def _recalled(key: Any, look: Callable[[], Any]) -> Any:
    known = _looked_at.get()
    if known is None:
        return look()
    if key not in known:
        known[key] = look()
    return known[key]


class CodeVersions:
    """Code versions of an extraction's assets; reads a little of each local checkpoint."""

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings

    @cached_property
    def _model(self) -> Any:
        model = self._settings.language_model
        further = (".py",) if model.trust_remote_code else ()
        return _recalled(
            ("model", model.checkpoint), lambda: checkpoint_identity(model.path, model.revision, further=further)
        )

    def of(self, name: str, sae: str | None = None) -> str:
        """Code version of an asset by its name; of one of SAE ``sae`` where each SAE has it."""
        row = asset_row(name)
        return fingerprint(name, **self._parts(row, sae), **raised_versions(*_kinds_within(row)))

    def _parts(self, row: Asset, sae: str | None) -> dict[str, Any]:
        """What is in a code version: what is upstream of a chunk, then what the catalog says of the asset itself."""
        if row.name == CORPUS:
            return self._samples(row)
        above = None if row.upstream is None else asset_row(row.upstream)
        parts: dict[str, Any] = {}
        if above is not None and above.name == CORPUS:  # without its length: its first chunks stay as they were
            parts["samples"] = self._samples(above, by_chunk=True)
        elif above is not None and above.partitioned and row.partitioned:
            parts |= self._parts(above, sae)
        for look in row.looks_at:
            parts |= self._look(look, sae)
        values = values_in_code_version(row, self._settings, None if sae is None else self._settings.saes[sae])
        return parts | {field.rpartition(".")[2]: value for field, value in values.items()}

    def _look(self, look: str, sae: str | None) -> dict[str, Any]:
        """What the catalog's name of a part of a code version stands for: a word below, or another asset's name."""
        settings = self._settings
        match look, sae:
            case "hooks", _:  # where none is set, what their checkpoints say is read when a run begins
                recorded = [sae_identity(one) for one in settings.saes.values() if one.hook is None]
                return {"hooks": settings.declared_hooks, **({"hooks_of": recorded} if recorded else {})}
            case "hook", str():
                return {"hooks": [settings.saes[sae].hook]}
            case "sae", str():
                return {"sae": sae_identity(settings.saes[sae])}
            case "model", _:
                return {"model": self._model}
            case "written", str():
                return {"written": settings.saes[sae].hook_out or settings.saes[sae].hook}
            case "other_saes", str():
                return {"other_saes": {name: sae_identity(one) for name, one in settings.saes.items() if name != sae}}
            case "table", str():
                return {"table": self.of(TOP_K_TABLE, sae)}
            case name, _ if name in names():
                return {name: self.of(name, sae)}
        raise ValueError(f"the catalog names a part {look!r} of a code version, which is not known here")

    def _samples(self, corpus: Asset, *, by_chunk: bool = False) -> dict[str, Any]:
        """What decides the tokens of the corpus; with ``by_chunk``, those of a chunk."""
        found: dict[str, Any] = {"model": self._model, "corpus": {}}
        for field, value in values_in_code_version(corpus, self._settings, by_chunk=by_chunk).items():
            group, _, name = field.rpartition(".")
            (found[group] if group else found)[name] = value
        return found


def _kinds_within(row: Asset) -> Iterator[str]:
    """Kinds of fingerprints within that of the corpus, of a chunk asset, or of one of weights alone; whatever is made
    from chunks has their code version, and chunks have the corpus's tokens."""
    if row.upstream is None:
        yield from _kinds_of_parts(row)
    while row.partitioned:
        yield from _kinds_of_parts(row)
        row = asset_row(str(row.upstream))


def _kinds_of_parts(row: Asset) -> Iterator[str]:
    for part in row.fingerprint_parts:
        yield from _KINDS_OF_PART.get(part, (part,) if part in names() else ())


def sae_identity(sae: SaeSettings) -> Any:
    """The identity of an SAE's checkpoint without reading all of it, as ``checkpoint_identity``.

    Of the hub, its repository, its place there and the revision, whether a name says it or ``path``.
    """
    return _recalled(("sae", sae.checkpoint), lambda: _sae_identity(sae))


def _sae_identity(sae: SaeSettings) -> Any:
    reference = sae.checkpoint
    if sae.path is not None and is_local(sae.path):
        try:
            place = sae_place(reference)  # on this machine: asks no hub
        except (OSError, ValueError):  # not there yet
            return [_whole_path(sae), sae.revision, *_names(sae)]
        files = _files_of_folder(place) if place.file is None else files_beside(place)
        return _identity_of(files) or [str(place), sae.revision]
    try:
        published = named_sae(reference)
    except ValueError:  # no such name: definitions say so when they load
        published = None
    if sae.release is None:
        return [_whole_path(sae), sae.revision]
    if published is None:
        return [sae.path, sae.revision, *_names(sae)]
    return [f"{sae.path or published.repository}/{published.path}", sae.revision]


def _files_of_folder(place: SaePlace) -> list[Path]:
    """Those that can matter, and what a format has in a folder below."""
    below = [place.folder / name for name in files_on_hub("") if "/" in name]
    return _files_in(place.folder, ".npz", ".pt") + [file for file in below if file.is_file()]


def _whole_path(sae: SaeSettings) -> str:
    path = sae.path or ""
    return str(Path(path).expanduser() / sae.subfolder) if sae.subfolder else path


def _names(sae: SaeSettings) -> list[str | None]:
    return [] if sae.release is None else [sae.release, sae.sae_id]


def checkpoint_identity(path: str, revision: str | None, *, further: tuple[str, ...] = ()) -> Any:
    """The identity of a checkpoint without reading all of it.

    For a folder: name, size and the first and last 64 KiB of each file that can matter (of the suffixes ``further``
    too), wherever the folder lies. For a hub id, and for a folder that is not there (yet): path and revision.
    """
    return _identity_of(_files_in(Path(path).expanduser(), *further)) or [path, revision]


def _files_in(folder: Path, *further: str) -> list[Path]:
    """The files of a checkpoint's folder that can matter, sorted by name."""
    suffixes = (".json", ".safetensors", ".txt", ".model", ".codes", ".spm", ".bpe", ".tiktoken", ".vocab", *further)
    return [file for file in sorted(folder.glob("*")) if file.suffix in suffixes and file.is_file()]


def _identity_of(files: Iterable[Path]) -> list[tuple[str, int, str]]:
    return [(file.name, file.stat().st_size, _ends(file)) for file in files]


def _ends(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_END_BYTES))
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        digest.update(file.read(_END_BYTES))
    return digest.hexdigest()[:16]


class Lineage:
    """Tags that say what a recorded chunk was made from. Dagster adds them only to what a step records at its end."""

    def __init__(self, instance: dg.DagsterInstance, plan: ExtractionPlan) -> None:
        self.instance, self._plan = instance, plan
        self._version_of = cache(CodeVersions(plan.settings).of)  # reads files: once a run, not for every event
        self._latest_target: tuple[tuple[dg.AssetKey, str | None], dg.EventLogRecord] | None = None
        """The materialization that the last evaluation names: those of one chunk's table come one after the other."""
        self._corpus_pointer = _pointer(instance, corpus_key(plan.settings), None)
        self._recorded = set[tuple[dg.AssetKey, str]]()
        """Assets and chunks of which this run records an event."""
        self._pointers = dict[tuple[dg.AssetKey, str], str]()
        """Of those, to their events; each SAE has the same activations."""
        self._pointers_before = dict[dg.AssetKey, tuple[float, dict[str, str]]]()
        """Of assets that this run does not make: when they were looked up, and all of them."""

    def report(self, event: dg.AssetMaterialization | dg.AssetCheckEvaluation) -> None:
        """Records an event after the run has stopped taking events."""
        self.instance.report_runless_asset_event(event)

    def targeted(self, evaluation: dg.AssetCheckEvaluation) -> dg.AssetCheckEvaluation:
        """An evaluation that names the latest materialization of its chunk; without one Dagster takes it for outdated.

        Call it after the materialization was recorded. It is looked up once for evaluations that follow each other.
        """
        record = self._target((evaluation.asset_key, evaluation.partition))
        if record is None:
            return evaluation
        return dg.AssetCheckEvaluation(
            asset_key=evaluation.asset_key,
            check_name=evaluation.check_name,
            passed=evaluation.passed,
            metadata=evaluation.metadata,
            target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            ),
            severity=evaluation.severity,
            description=evaluation.description,
            blocking=evaluation.blocking,
            partition=evaluation.partition,
        )

    def _target(self, chunk: tuple[dg.AssetKey, str | None]) -> dg.EventLogRecord | None:
        if self._latest_target is None or self._latest_target[0] != chunk:
            record = _latest(self.instance, *chunk)
            self._latest_target = None if record is None else (chunk, record)
        return None if self._latest_target is None else self._latest_target[1]

    def tags(self, asset: ChunkAsset, sae: str | None, chunk: Chunk) -> dict[str, str]:
        """Tags of the event of a chunk; call it after the upstream event of the same run, if any, was recorded."""
        self._latest_target = None  # this event is the target of the next evaluations
        upstream, version, pointer = self._upstream(asset, sae, chunk)
        self._recorded.add((asset_key(self._plan.settings, asset, sae), chunk.key))
        name = upstream.to_user_string()
        return {
            "dagster/data_version": data_version(self._plan, asset, sae, chunk),
            "dagster/data_version_is_user_provided": "true",
            "dagster/code_version": self._version_of(asset, sae),
            f"dagster/input_data_version/{name}": version,
            f"dagster/input_event_pointer/{name}": pointer,
        }

    def _upstream(self, asset: ChunkAsset, sae: str | None, chunk: Chunk) -> tuple[dg.AssetKey, str, str]:
        """What a chunk asset is made from: its key, data version and latest event."""
        above = asset_row(str(asset_row(asset).upstream))
        upstream = asset_key(self._plan.settings, above.name, sae)
        if above.name == CORPUS:
            return upstream, self._plan.corpus_version, self._corpus_pointer
        version = data_version(self._plan, above.name, sae, chunk)
        return upstream, version, self._chunk_pointer(upstream, chunk.key)

    def _chunk_pointer(self, key: dg.AssetKey, chunk: str) -> str:
        """To the latest event of a chunk. Of an asset that this run does not make, those of all chunks are looked up
        at once, and again after a while: another run may make it."""
        if (key, chunk) not in self._recorded:
            return self._before(key).get(chunk, _NO_EVENT)
        if (key, chunk) not in self._pointers:
            self._pointers[key, chunk] = _pointer(self.instance, key, chunk)
        return self._pointers[key, chunk]

    def _before(self, key: dg.AssetKey) -> dict[str, str]:
        now = time.monotonic()
        if key not in self._pointers_before or now - self._pointers_before[key][0] > _POINTERS_SECONDS:
            self._pointers_before[key] = now, _pointers(self.instance, key)
        return self._pointers_before[key][1]


def data_version(plan: ExtractionPlan, asset: ChunkAsset, sae: str | None, chunk: Chunk) -> str:
    """The identity of a chunk's content."""
    if asset == MODEL_ACTIVATIONS:
        # Not the file's fingerprint, which names the hooks: one more hook changes nothing for readers of another.
        return plan.outputs_fingerprint(chunk)
    return plan.fingerprint_of(asset, chunk, sae)


def data_versions(plan: ExtractionPlan, asset: ChunkAsset, sae: str | None) -> Mapping[str, str]:
    """``data_version`` of every chunk by its key."""
    if asset == MODEL_ACTIVATIONS:
        return {chunk.key: data_version(plan, asset, sae, chunk) for chunk in plan.settings.chunks}
    return plan.fingerprints(asset, sae)


def _pointer(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> str:
    """Storage id of the latest event of an asset, as Dagster writes it into tags."""
    record = _latest(instance, key, partition)
    return _NO_EVENT if record is None else str(record.storage_id)


def _pointers(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, str]:
    """Partition -> storage id of its latest event, of an asset's partitions that have one."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    found = instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)
    return {partition: str(number) for partition, number in found.items()}


def _latest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> dg.EventLogRecord | None:
    partitions = None if partition is None else [partition]
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=partitions)
    return next(iter(instance.fetch_materializations(filters, limit=1).records), None)
