"""What changed settings of samples and chunks mean for the chunks on disk, in sentences for users."""

from pathlib import Path

from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.planning.plan import has_recipe
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.sealed import DamagedFileError

Spans = dict[str, set[int]]
"""Chunk key -> how many samples its tables on disk hold, of any fingerprint; of a chunk with the wanted number perhaps
not all."""


def changes_on_disk(settings: ExtractionSettings, store: ChunkStore) -> list[str]:
    """Which chunks are new, or have to be recomputed because of their size, by the files on disk.

    Reads the records in the files, not fingerprints: after a new SAE or a new K this says nothing.
    """
    stored = _stored_spans(settings, store)
    if not stored:
        return []
    try:
        current = store.current_corpus(settings.name)
    except DamagedFileError:
        return []
    if current is None:
        there = f"{len(stored)} chunks are" if len(stored) > 1 else "1 chunk is"
        return [f"{there} on disk; which are current is known once the corpus is there"]
    corpus = current.corpus
    if not has_recipe(current, settings.model_copy(update={"evaluation_samples": len(corpus)})):
        return ["which of the chunks on disk are still current is known once the corpus is there"]
    because = ""
    if len(corpus) != settings.evaluation_samples:
        because = f"evaluation_samples was {len(corpus)} and is now {settings.evaluation_samples}"
    sizes = _size_change(settings, stored)
    if sizes:
        return [part for part in (because, sizes) if part]
    what = _new_and_resized(settings, stored, grown=bool(because))
    if because and not what:
        what = "no chunk is computed again"
    return [": ".join(part for part in (because, what) if part)] if what else []


def _size_change(settings: ExtractionSettings, stored: Spans) -> str | None:
    """Everything is recomputed if no chunk on disk has the place and the size of a requested one.

    A single short chunk on disk is the last of few samples, and does not show the size of chunks.
    """
    wanted = _wanted_spans(settings)
    largest = max(max(sizes) for sizes in stored.values())
    if any(size in stored.get(key, ()) for key, size in wanted.items()):
        return None
    if len(stored) == 1 and largest < settings.chunk_size and next(iter(stored)) in wanted:
        return None
    last = max(stored)
    if last == min(wanted) and max(stored[last]) > wanted[last] == settings.evaluation_samples:
        return None  # one chunk then and one chunk now, of fewer samples
    total = f"all {len(wanted)} chunks are computed again" if len(wanted) > 1 else "the only chunk is computed again"
    if min(wanted) not in stored:
        return f"start_sample is now {settings.start_sample}, where no chunk on disk begins: {total}"
    return f"chunk_size is now {settings.chunk_size} and chunks on disk hold {largest} samples: {total}"


def _new_and_resized(settings: ExtractionSettings, stored: Spans, *, grown: bool) -> str:
    """Which chunks are new, and which last one was or becomes short."""
    wanted, parts = _wanted_spans(settings), []
    new = [key for key in wanted if key not in stored]
    if grown and new:
        parts.append(f"{len(new)} chunk{'s are' if len(new) > 1 else ' is'} new")
    resized = [key for key, size in wanted.items() if key in stored and size not in stored[key]]
    if len(resized) > 1:  # a change of chunk_size that was begun
        parts.append(f"{len(resized)} chunks, which held other numbers of samples, are computed again")
    for key in resized if len(resized) == 1 else ():
        parts.append(
            f"chunk {key}, which held {max(stored[key])} samples and now holds {wanted[key]}, is computed again"
        )
    return ", and ".join(parts)


def _wanted_spans(settings: ExtractionSettings) -> dict[str, int]:
    return {chunk.key: chunk.num_samples for chunk in settings.chunks}


def _stored_spans(settings: ExtractionSettings, store: ChunkStore) -> Spans:
    """A chunk's tables are read until one holds what is wanted, with which nothing else of it is of interest: one of 12
    SAEs says it for all."""
    tables = dict[str, list[Path]]()
    for sae in settings.saes:
        for chunk in store.chunk_files(settings.name, TOP_K_TABLE, sae):
            if chunk.seal is None:
                tables.setdefault(chunk.key, []).append(chunk.path)
    wanted, spans = _wanted_spans(settings), Spans()
    for key in sorted(tables):
        for path in tables[key]:
            size = _samples_in(path, store)
            if size is not None:
                spans.setdefault(key, set()).add(size)
            if size is not None and size == wanted.get(key):
                break
    return spans


def _samples_in(table: Path, store: ChunkStore) -> int | None:
    """None if what it holds is not known."""
    try:
        return int(store.record(table)["samples_seen"])
    except (DamagedFileError, KeyError, TypeError, ValueError, OSError):
        return None
