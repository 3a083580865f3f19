"""Code and data versions: what Dagster compares to say that a chunk or a merge is stale.

A code version is a hash of the settings that an asset's content depends on, its own and those upstream: Dagster
looks one step upstream only, and at no step with 100 partitions or more. It says what of the *settings* has changed,
as far as that can be known when definitions load, without reading whole checkpoints; whether a file is current is for
its fingerprint to say (``ExtractionPlan.chunk_state``), which covers every byte.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.dagster_instance.private_names import AssetCheckEvaluationTargetMaterializationData
from extraction_assets.engine.saes.checkpoint import encode_options
from extraction_assets.execution.keys import activations_key, corpus_key, sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings, SaeSettings
from extraction_assets.stores.chunk_store import ChunkAsset
from extraction_assets.stores.fingerprints import fingerprint, raised_versions

_PAGE_EVENTS = 1000
_END_BYTES = 1 << 16
"""Bytes at either end of a checkpoint's files that tell whether it was replaced: header and last weights."""

_MADE_FROM: dict[ChunkAsset, tuple[str, ...]] = {
    "model_activations": ("files", "hook_output"),
    "sae_features": ("files", "hook_output"),
    "top_k_table": ("files", "hook_output", "sae_features"),
}
"""Kinds whose version is part of every fingerprint of a chunk asset, beside its own kind."""


class CodeVersions:
    """Code versions of an extraction's assets; reads a little of each local checkpoint, once."""

    def __init__(self, settings: ExtractionSettings) -> None:
        self._settings = settings
        model = settings.language_model.checkpoint
        self._model = checkpoint_identity(
            model.path, model.revision, further=(".py",) if model.trust_remote_code else ()
        )

    @property
    def corpus(self) -> str:
        return fingerprint("corpus", **self._samples(), evaluation_samples=self._settings.evaluation_samples)

    def chunk(self, asset: ChunkAsset, sae: str | None) -> str:
        """Of any chunk asset. The corpus's length has no part in it: its first chunks stay as they were."""
        settings = self._settings
        parts: dict[str, Any] = {
            "samples": self._samples(),
            "chunk_size": settings.chunk_size,
            "dtype": settings.language_model.dtype,
            "hooks": settings.declared_hooks,
        }
        recorded = [sae_identity(own) for own in settings.saes.values() if own.hook is None]
        if recorded:  # what their checkpoints say is read when a run begins
            parts["hooks_of"] = recorded
        if sae is not None:
            chosen = settings.saes[sae]
            parts |= {"sae": sae_identity(chosen), "hooks": [chosen.hook], **encode_options(chosen)}
            parts |= chosen.model_dump(include={"hook_out"}, exclude_none=True)
        if asset == "top_k_table":
            parts |= settings.model_dump(include={"top_k_examples", "min_activation"})
            parts |= settings.corpus.model_dump(include={"count_special_tokens", "exclude_first_positions"})
            later = {"exclude_positions", "exclude_outlier_norms"}
            parts |= settings.corpus.model_dump(mode="json", include=later, exclude_defaults=True)
        return fingerprint(asset, **parts, **raised_versions(*_MADE_FROM[asset]))

    def merged(self, sae: str) -> str:
        """Of the merged examples of an SAE."""
        samples = self._settings.evaluation_samples
        return fingerprint("feature_examples", table=self.chunk("top_k_table", sae), evaluation_samples=samples)

    def _samples(self) -> dict[str, Any]:
        """What decides the tokens of the corpus."""
        settings = self._settings
        own = settings.corpus.model_dump(include={"source", "max_length", "prepend_bos"})
        own |= settings.corpus.token_choices()
        return {"model": self._model, "corpus": own, "start_sample": settings.start_sample}


def sae_identity(sae: SaeSettings) -> Any:
    """What tells one SAE's checkpoint from another's without reading all of it, as ``checkpoint_identity``."""
    path = str(Path(sae.path).expanduser() / sae.subfolder) if sae.subfolder else sae.path
    return checkpoint_identity(path, sae.revision, further=(".npz", ".pt"))


def checkpoint_identity(path: str, revision: str | None, *, further: tuple[str, ...] = ()) -> Any:
    """What tells one checkpoint from another without reading all of it.

    For a folder: name, size and the first and last 64 KiB of each file that can matter (of the suffixes ``further``
    too), wherever the folder lies. For a hub id, and for a folder that is not there (yet): path and revision.
    """
    folder = Path(path).expanduser()
    suffixes = (".json", ".safetensors", ".txt", ".model", ".codes", ".spm", ".bpe", ".tiktoken", ".vocab", *further)
    files = [file for file in sorted(folder.glob("*")) if file.suffix in suffixes and file.is_file()]
    if not files:
        return [path, revision]
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
        self._versions = CodeVersions(plan.settings)
        self._corpus_pointer = _pointer(instance, corpus_key(plan.settings), None)

    def report(self, event: dg.AssetMaterialization | dg.AssetCheckEvaluation) -> None:
        """Records an event where the run takes none any more."""
        self.instance.report_runless_asset_event(event)

    def targeted(self, evaluation: dg.AssetCheckEvaluation) -> dg.AssetCheckEvaluation:
        """An evaluation that names the latest materialization of its chunk; without one Dagster takes it for outdated.

        Ask after the materialization was recorded.
        """
        record = _latest(self.instance, evaluation.asset_key, evaluation.partition)
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

    def tags(self, asset: ChunkAsset, sae: str | None, key: str) -> dict[str, str]:
        """Tags of the event of a chunk; ask after the upstream event of the same run, if there is one, was recorded."""
        upstream, version, pointer = self._upstream(asset, sae, key)
        name = upstream.to_user_string()
        return {
            "dagster/data_version": data_version(self._plan, asset, sae, key),
            "dagster/data_version_is_user_provided": "true",
            "dagster/code_version": self._versions.chunk(asset, sae),
            f"dagster/input_data_version/{name}": version,
            f"dagster/input_event_pointer/{name}": pointer,
        }

    def _upstream(self, asset: ChunkAsset, sae: str | None, key: str) -> tuple[dg.AssetKey, str, str]:
        """What a chunk asset is made from: its key, data version and latest event."""
        settings = self._plan.settings
        if asset == "model_activations":
            return corpus_key(settings), self._plan.corpus_version, self._corpus_pointer
        if asset == "sae_features":
            upstream = activations_key(settings)
            return (
                upstream,
                data_version(self._plan, "model_activations", None, key),
                _pointer(self.instance, upstream, key),
            )
        upstream = sae_key(settings, str(sae), "sae_features")
        return upstream, data_version(self._plan, "sae_features", sae, key), _pointer(self.instance, upstream, key)


def data_version(plan: ExtractionPlan, asset: ChunkAsset, sae: str | None, key: str) -> str:
    """What tells one content of a chunk from another."""
    if asset == "model_activations":
        # Not the file's fingerprint, which names the hooks: one hook more changes nothing for who reads another.
        return plan.outputs_fingerprint(key)
    return plan.chunk_fingerprint(asset, key, sae)


def recorded_versions(
    instance: dg.DagsterInstance, asset: dg.AssetKey, wanted: Collection[str]
) -> dict[str, tuple[str | None, str | None]]:
    """Data and code version of the latest event of each partition of an asset that has one."""
    found: dict[str, tuple[str | None, str | None]] = {}
    cursor = None
    while True:
        page = instance.fetch_materializations(asset, limit=_PAGE_EVENTS, cursor=cursor)
        for record in page.records:
            event, partition = record.asset_materialization, record.partition_key
            if event is not None and partition in wanted and partition not in found:
                tags = event.tags or {}
                found[str(partition)] = tags.get("dagster/data_version"), tags.get("dagster/code_version")
        if not page.has_more or len(found) == len(wanted):
            return found
        cursor = page.cursor


def _pointer(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> str:
    """Storage id of the latest event of an asset, as Dagster writes it into tags."""
    record = _latest(instance, key, partition)
    return "NULL" if record is None else str(record.storage_id)


def _latest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> dg.EventLogRecord | None:
    partitions = None if partition is None else [partition]
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=partitions)
    return next(iter(instance.fetch_materializations(filters, limit=1).records), None)
