"""What chunk files and Dagster's history record of a result: its checks, its numerics, how fast it was made."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg

from extraction_assets.assets.chunks.checks import CHUNK_CHECKS, CHUNK_WARNINGS
from extraction_assets.assets.examples.checks import MERGE_CHECKS
from extraction_assets.catalog import FEATURE_EXAMPLES, TOP_K_TABLE
from extraction_assets.execution.keys import sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_record import Record, checks_of
from extraction_assets.stores.sealed import DamagedFileError

_STAGES = ("forward", "encode", "select")
_EVENTS_AT_ONCE = 1000
_DATA_VERSION = "dagster/data_version"


class CheckOutcome(NamedTuple):
    """A claim, and where it holds."""

    name: str
    claim: str
    chunks: int | None
    """Those in which it holds; None for a claim of the merge as a whole, which is committed only if it holds."""
    of: int
    """Chunks that have a record of it."""


class Recorded(NamedTuple):
    """What the files of a result's chunks say."""

    checks: list[CheckOutcome]
    numerics: list[dict[str, Any]]
    """The different numerics records; more than one means that last bits may differ between chunks."""
    variance_explained: tuple[float, float] | None
    """Least and most of all chunks."""
    unknown: str | None
    """Why nothing, or not everything, is known."""


class Speed(NamedTuple):
    """How long a result took, as Dagster recorded it."""

    chunks: int
    """Those with recorded times."""
    samples: int
    tokens: int
    seconds: float
    """Of their passes, for all SAEs of a run together; runs on several GPUs at once add up."""
    stage_shares: dict[str, float]
    """Share of the passes' time by stage."""
    merge_seconds: float | None
    merged_examples_per_second: float | None


def recorded(plan: ExtractionPlan | None, sae: str, fingerprint: str, why_no_plan: str = "") -> Recorded:
    """What the chunks of a merge say of themselves; ``fingerprint`` is the merge's. Without a plan, only what every
    merge has passed."""
    held = [CheckOutcome(name, claim, None, 0) for name, claim in MERGE_CHECKS.items()]
    if plan is None or plan.merge_fingerprint(sae) != fingerprint:
        return Recorded(held, [], None, why_no_plan or "the chunks on disk are of other settings than this result")
    records = list(_records(plan, sae))
    passed, seen = Counter[str](), Counter[str]()
    for record in records:
        outcomes = checks_of(record)
        seen.update(list(outcomes))
        passed.update(name for name, held_here in outcomes.items() if held_here)
    claims = {**CHUNK_CHECKS, **CHUNK_WARNINGS}
    checks = [CheckOutcome(name, claim, passed[name], seen[name]) for name, claim in claims.items()]
    every = len(plan.settings.chunks)
    unknown = None if len(records) == every else f"{every - len(records)} of {every} chunk tables are not on disk"
    return Recorded([*checks, *held], _distinct(records), _explained(records), unknown)


def recorded_speed(instance: dg.DagsterInstance, settings: ExtractionSettings, sae: str, merge: str) -> Speed | None:
    """The times of the chunks' latest computation and of the merge with fingerprint ``merge``; None where Dagster's
    history has none of the chunks."""
    table = sae_key(settings, sae, TOP_K_TABLE)
    latest: dict[str, Mapping[str, Any]] = {}
    for event in _events(instance, table):
        if event.partition in settings.chunk_keys and "seconds" in event.metadata:
            latest.setdefault(str(event.partition), _numbers(event))
    if not latest:
        return None
    seconds = _total(latest.values(), "seconds")
    stages = {stage: _total(latest.values(), f"seconds_{stage}") for stage in _STAGES}
    in_stages = sum(stages.values())
    merged = _merge_numbers(instance, settings, sae, merge)
    return Speed(
        len(latest),
        int(_total(latest.values(), "samples")),
        int(_total(latest.values(), "tokens")),
        seconds,
        {stage: spent / in_stages for stage, spent in stages.items()} if in_stages else {},
        merged.get("seconds"),
        merged.get("examples_per_second"),
    )


def _records(plan: ExtractionPlan, sae: str) -> Iterator[Record]:
    for chunk in plan.settings.chunks:
        try:
            yield plan.store.record(plan.chunk_path(TOP_K_TABLE, chunk, sae))
        except (FileNotFoundError, DamagedFileError):
            continue


def _distinct(records: Iterable[Record]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for record in records:
        numerics = record.get("numerics")
        if isinstance(numerics, dict) and numerics not in found:
            found.append(numerics)
    return found


def _explained(records: Iterable[Record]) -> tuple[float, float] | None:
    found = [record.get("variance_explained") for record in records]
    numbers = [one for one in found if isinstance(one, float) and one == one]
    return (min(numbers), max(numbers)) if numbers else None


def _events(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[dg.AssetMaterialization]:
    """Materializations of an asset, the latest first."""
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(key, limit=_EVENTS_AT_ONCE, cursor=cursor)
        yield from (record.asset_materialization for record in page.records if record.asset_materialization)
        if not page.has_more:
            return
        cursor = page.cursor


def _merge_numbers(
    instance: dg.DagsterInstance, settings: ExtractionSettings, sae: str, fingerprint: str
) -> Mapping[str, Any]:
    for event in _events(instance, sae_key(settings, sae, FEATURE_EXAMPLES)):
        if (event.tags or {}).get(_DATA_VERSION) == fingerprint:
            return _numbers(event)
    return {}


def _numbers(event: dg.AssetMaterialization) -> dict[str, Any]:
    values = {name: getattr(value, "value", None) for name, value in event.metadata.items()}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _total(numbers: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(float(one.get(name, 0)) for one in numbers)
