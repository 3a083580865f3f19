"""Which chunks of an asset Dagster's history knows, and whether as made from the current settings.

Data versions come from Dagster's index. Code versions are in the events alone, which take a millisecond each to read:
two minutes for 10,000 chunks of 12 SAEs, where a schedule has one. A run records all its chunks of an asset with one
code version (``Lineage``), so that one event a run is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import dagster as dg

_MATERIALIZATION: Final = dg.DagsterEventType.ASSET_MATERIALIZATION
_DATA_VERSION = "dagster/data_version"
_CODE_VERSION = "dagster/code_version"
_PAGE_EVENTS = 1000
"""Events in one query: databases limit how many ids a query names."""
_READ_EVENTS = 250
"""Events of an asset that are read, unless their code versions differ."""


class RecordedChunks(NamedTuple):
    """Keys of an asset's chunks with an event in the history."""

    current: set[str]
    """Those whose latest event has the current data and code version."""
    otherwise: set[str]
    """The others: last recorded with other settings, or by another version of this package."""


def recorded_chunks(
    instance: dg.DagsterInstance, asset: dg.AssetKey, data_versions: Mapping[str, str], code_version: str
) -> RecordedChunks:
    """What the latest event of each chunk says, of those with a current version in ``data_versions``.

    Data versions are compared for every chunk, code versions for one event of each run that recorded some. Of more
    than 250 such runs (of events that no run has, and of all before Dagster 1.13.26, each counts as a run), as many
    events are read evenly from the oldest to the newest, and more only between two that differ. What can be missed are
    fewer than one run in 250 with another code version, between runs with the current one; such a chunk holds what the
    settings say, and keeps its stale mark in Dagster until it is next recorded.
    """
    storage = instance.event_log_storage
    tags = storage.get_latest_tags_by_partition(asset, _MATERIALIZATION, [_DATA_VERSION])
    latest = storage.get_latest_storage_id_by_partition(asset, _MATERIALIZATION)
    known = {key: latest[key] for key in data_versions if key in latest}
    equal = {key: event for key, event in known.items() if tags.get(key, {}).get(_DATA_VERSION) == data_versions[key]}
    run_of = _runs(instance, asset, sorted(equal.values()))
    one_of = {run: event for event, run in run_of.items()}  # the newest, for they ascend
    events = sorted(one_of.values())
    version_of = dict(zip(events, _code_versions(instance, asset, events), strict=True))
    current = {key for key, event in equal.items() if version_of[one_of[run_of[event]]] == code_version}
    return RecordedChunks(current, set(known) - current)


def _runs(instance: dg.DagsterInstance, asset: dg.AssetKey, events: Sequence[int]) -> dict[int, str]:
    """The run of each event, in their order; a name of its own for an event that no run has recorded."""
    runs = dict[int, str | None]()
    if hasattr(instance.event_log_storage, "get_asset_event_summary_records"):  # since Dagster 1.13.26
        for page in _pages(events):
            found = instance.event_log_storage.get_asset_event_summary_records(
                _MATERIALIZATION, asset_key=asset, storage_ids=page
            )
            runs |= {one.storage_id: one.run_id for one in found}
    return {event: runs.get(event) or f"event {event}" for event in events}


def _code_versions(instance: dg.DagsterInstance, asset: dg.AssetKey, events: Sequence[int]) -> list[str | None]:
    """The code versions of events in ascending order, of which ``_READ_EVENTS`` are read, and those of the others are
    taken for their neighbours' where these are equal."""
    last = len(events) - 1
    read = dict[int, str | None]()
    places = sorted({*range(0, len(events), max(1, len(events) // _READ_EVENTS)), last}) if events else []
    while places:
        read |= zip(places, _read_code_versions(instance, asset, [events[place] for place in places]), strict=True)
        order = sorted(read)
        places = [(low + high) // 2 for low, high in pairwise(order) if high > low + 1 and read[low] != read[high]]
    versions = list[str | None]()
    for place in range(len(events)):
        versions.append(read[place] if place in read else versions[-1])
    return versions


def _read_code_versions(instance: dg.DagsterInstance, asset: dg.AssetKey, events: Sequence[int]) -> list[str | None]:
    found = dict[int, str | None]()
    for page in _pages(events):
        filters = dg.AssetRecordsFilter(asset_key=asset, storage_ids=page)
        for record in instance.fetch_materializations(filters, limit=len(page)).records:
            event = record.asset_materialization
            found[record.storage_id] = None if event is None else (event.tags or {}).get(_CODE_VERSION)
    return [found.get(event) for event in events]  # None of one that was removed meanwhile


def _pages(events: Sequence[int]) -> Iterator[Sequence[int]]:
    return (events[at : at + _PAGE_EVENTS] for at in range(0, len(events), _PAGE_EVENTS))
