"""Which of an extraction's chunks still have to be computed or recorded."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import dagster as dg

from extraction_assets.assets.chunks.checks import CHUNK_CHECKS
from extraction_assets.catalog import FEATURE_DIRECTIONS, FEATURE_EXAMPLES, TOP_K_TABLE
from extraction_assets.dagster_instance.private_names import AssetCheckExecutionRecordStatus
from extraction_assets.execution.keys import Target, chunk_targets, sae_key
from extraction_assets.execution.lineage import CodeVersions, data_versions
from extraction_assets.execution.recorded_chunks import RecordedChunks, recorded_chunks
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.stores.chunk_store import ChunkState


class Pending:
    """The work that brings an extraction's chunks up to date.

    A chunk is computed if files are missing (``ExtractionPlan.missing_chunks``). If the files exist but not all events
    are in the history (the process was killed between them), the chunk is only recorded.
    """

    def __init__(self, plan: ExtractionPlan, instance: dg.DagsterInstance) -> None:
        self._plan, self._instance = plan, instance
        self._targets = chunk_targets(plan.settings)
        self._versions = CodeVersions(plan.settings)
        self._known = dict[dg.AssetKey, RecordedChunks]()
        """What the history says of tables now, and of other assets as of the first question, which is rare."""
        for target in self._tables:
            self._recorded(target)

    @cached_property
    def keys(self) -> list[str]:
        """Chunks with a top-k table to be computed or recorded."""
        every = self._plan.settings.chunk_keys
        return [key for key in every if any(self._is_missing(table, key) for table in self._tables)]

    @cached_property
    def unrecorded(self) -> list[str]:
        """Those of ``keys`` with all files: a run of the missing chunks only records them."""
        return [key for key in self.keys if all(self._is_stored(target, key) for target in self._kept)]

    @property
    def recorded_otherwise(self) -> list[str]:
        """Those of ``unrecorded`` that the history does know, but last as made from other settings (before a change and
        back), or by another version of this package."""
        known = [set.union(*self._recorded(table)) for table in self._tables]
        return [key for key in self.unrecorded if all(key in keys for keys in known)]

    @property
    def set_aside(self) -> list[str]:
        """Chunks with a file that was damaged, set aside and not yet written again, for the assets to be kept.

        An earlier run that failed afterwards may have set it aside.
        """
        lost = set().union(*self._lost.values())
        return [key for key in self._plan.settings.chunk_keys if key in lost]

    def assets(self, keys: Sequence[str]) -> list[dg.AssetKey]:
        """The assets that are missing for some of these chunks, among those to be kept; stored files upstream are read.

        If the tables of a chunk exist, only what was set aside is missing: the rest may never have been requested.
        """
        pending, lost = set(self.keys), self._lost
        return [
            target.key
            for target in self._kept
            if any((key in pending and self._is_missing(target, key)) or key in lost[target.key] for key in keys)
        ]

    def _is_missing(self, target: Target, key: str) -> bool:
        return key not in self._recorded(target).current or not self._is_stored(target, key)

    def _recorded(self, target: Target) -> RecordedChunks:
        """Of tables, ``current`` are those alone whose checks are recorded too."""
        if target.key not in self._known:
            plan, asset, sae = self._plan, target.asset, target.sae
            versions, code = data_versions(plan, asset, sae), self._versions.of(asset, sae)
            found = recorded_chunks(self._instance, target.key, versions, code)
            if asset == TOP_K_TABLE:
                found = found._replace(current=found.current & _checked(self._instance, target.key))
            self._known[target.key] = found
        return self._known[target.key]

    @cached_property
    def _lost(self) -> dict[dg.AssetKey, set[str]]:
        """Chunks of each asset with a file that was set aside and is not replaced yet."""
        return {target.key: set(self._plan.set_aside_chunks(target.asset, target.sae)) for target in self._kept}

    @cached_property
    def _states(self) -> dict[dg.AssetKey, dict[str, ChunkState]]:
        """The state of every chunk of each asset, as of the first question."""
        return {target.key: self._plan.chunk_states(target.asset, target.sae) for target in self._targets}

    @property
    def _tables(self) -> list[Target]:
        return [target for target in self._targets if target.asset == TOP_K_TABLE]

    @property
    def _kept(self) -> list[Target]:
        return [target for target in self._targets if self._plan.settings.keep.keeps(target.asset)]

    def _is_stored(self, target: Target, key: str) -> bool:
        return self._states[target.key][key] == "done"


def merge_is_recorded(plan: ExtractionPlan, sae: str, instance: dg.DagsterInstance) -> bool:
    """Whether the latest event of an SAE's merge says what is current."""
    version, code = plan.merge_fingerprint(sae), CodeVersions(plan.settings).of(FEATURE_EXAMPLES, sae)
    return _latest_versions(instance, sae_key(plan.settings, sae, FEATURE_EXAMPLES)) == (version, code)


def is_recorded(plan: ExtractionPlan, asset: str, sae: str, instance: dg.DagsterInstance) -> bool:
    """Whether the latest event of an asset that is made from an SAE's merge says what is current."""
    version, _ = _latest_versions(instance, sae_key(plan.settings, sae, asset))
    return version == plan.fingerprint_of(asset, None, sae)


def directions_are_recorded(plan: ExtractionPlan, sae: str, instance: dg.DagsterInstance) -> bool:
    """Whether the latest event of an SAE's directions says what is current."""
    code = CodeVersions(plan.settings).of(FEATURE_DIRECTIONS, sae)
    latest = _latest_versions(instance, sae_key(plan.settings, sae, FEATURE_DIRECTIONS))
    return latest == (plan.fingerprint_of(FEATURE_DIRECTIONS, None, sae), code)


def _latest_versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> tuple[str | None, str | None]:
    """Data and code version of an asset without partitions, as its latest event says."""
    event = instance.get_latest_materialization_event(key)
    tags = (event.asset_materialization.tags or {}) if event is not None and event.asset_materialization else {}
    return tags.get("dagster/data_version"), tags.get("dagster/code_version")


def _checked(instance: dg.DagsterInstance, table: dg.AssetKey) -> set[str]:
    """Chunks with all checks recorded as passed since their materialization.

    Row by row: Dagster's own summary of a check (``get_asset_check_state``) adds 10,000 partitions to a set one by one,
    each time to a copy.
    """
    passed = dict[str, set[str | None]]((name, set()) for name in CHUNK_CHECKS)
    keys = [dg.AssetCheckKey(table, name) for name in CHUNK_CHECKS]
    for one in instance.event_log_storage.get_asset_check_partition_info(keys):
        if one.is_current and one.latest_execution_status == AssetCheckExecutionRecordStatus.SUCCEEDED:
            passed[one.check_key.name].add(one.partition_key)
    return {key for key in set.intersection(*passed.values()) if key is not None}


def ranges(plan_keys: Sequence[str], keys: Sequence[str], most: int | None) -> Iterator[list[str]]:
    """Contiguous ranges of partition keys, at most ``most`` long; ``plan_keys`` are all keys in order."""
    order = {key: index for index, key in enumerate(plan_keys)}
    current: list[str] = []
    for key in keys:
        if current and (order[key] != order[current[-1]] + 1 or len(current) == most):
            yield current
            current = []
        current.append(key)
    if current:
        yield current


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """Tags of a run over a contiguous range of partitions."""
    return {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
