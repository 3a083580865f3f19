"""What of an extraction's chunks is still to be run: computed and recorded."""

from collections.abc import Iterator, Sequence

import dagster as dg

from extraction_assets.assets.chunk_run import chunk_targets
from extraction_assets.plan import ExtractionPlan


class Pending:
    """What a run has to do that brings an extraction's chunks up to date.

    A chunk is computed where its files are not there (``ExtractionPlan.missing_chunks``). Where they are, but no event
    says so (the process was killed between the two), it only has to be recorded.
    """

    def __init__(self, plan: ExtractionPlan, instance: dg.DagsterInstance) -> None:
        self._plan = plan
        self._targets = chunk_targets(plan.settings)
        self._recorded = {t.key: instance.get_materialized_partitions(t.key) for t in self._targets}

    @property
    def keys(self) -> list[str]:
        """Chunks with a top-k table to be computed or recorded."""
        tables = [target.key for target in self._targets if target.asset == "top_k_table"]
        missing = set(self._plan.missing_chunks())
        every = self._plan.settings.chunk_keys
        return [k for k in every if k in missing or any(k not in self._recorded[table] for table in tables)]

    def assets(self, keys: Sequence[str]) -> list[dg.AssetKey]:
        """The assets that some of these chunks lack, of those to be kept: what is stored upstream of them is read."""
        return [
            target.key
            for target in self._targets
            if getattr(self._plan.settings.keep, target.asset)
            and any(
                key not in self._recorded[target.key] or self._plan.chunk_state(target.asset, key, target.sae) != "done"
                for key in keys
            )
        ]


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
