"""What may be removed from the chunk store: nothing that an extraction of this or another module still uses."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from extraction_assets.catalog import MERGED_TABLES, ChunkAsset, chunk_assets
from extraction_assets.host.disk import readable_size
from extraction_assets.planning.merge_order import joined_tables, tables_to_merge
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_names import ChunkFile, tables_of
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.recognised_files import (
    Item,
    UnreadablePointer,
    asset_folders,
    is_old,
    item,
    own_files,
    stored_extractions,
    stored_saes,
    temporaries,
    unnamed_corpora,
)
from extraction_assets.stores.sealed import DamagedFileError

SUPERSEDED = "superseded: made from other settings, inputs or chunk sizes"
TEMPORARY = "temporaries of processes that are gone"
REMOVED_SAE = "of SAEs that are no longer declared"
NOT_KEPT = "not to be kept, and merged"
UNUSED_CORPUS = "corpora that no extraction uses"
KINDS = (SUPERSEDED, NOT_KEPT, REMOVED_SAE, TEMPORARY, UNUSED_CORPUS)


class Garbage(NamedTuple):
    """What may be removed, and notes for the user."""

    items: list[Item]
    notes: list[str]


Merged = Mapping[tuple[str, str], str]
"""(extraction, SAE) -> fingerprint of the merge that the database holds."""


def find_garbage(
    declared: Mapping[str, ExtractionSettings], names: Iterable[str], store: ChunkStore, merged: Merged
) -> Garbage:
    """What may be removed of the extractions ``names``; if none is named, of all declared ones, and corpora.

    Files of extractions that are not declared are never included: another module may declare them.
    """
    garbage = Garbage([], [])
    names = list(names)
    for name in names or declared:
        _look_at(declared[name], store, merged, garbage)
    if not names:
        _look_at_corpora(store, garbage)
        for name in sorted(set(stored_extractions(store)) - set(declared)):
            size = readable_size(store.files.size(store.root / name))
            garbage.notes.append(f"{name} ({size}) is not declared in this module and is left as it is")
    return garbage


def remove_garbage(garbage: Garbage, store: ChunkStore) -> tuple[int, list[str]]:
    """Removes what was found; returns the bytes freed, and what had to stay because a process now uses it."""
    freed, stayed = 0, []
    by_folder: dict[Path, list[Item]] = {}
    for found in garbage.items:
        by_folder.setdefault(found.path.parent, []).append(found)
    for folder, items in by_folder.items():
        with store.files.nobody_writing(folder) as free:
            guarded = [one for one in items if one.kind not in (TEMPORARY, UNUSED_CORPUS) or free]
            if folder == store.corpora:  # a run may have begun to use one since the search
                unused = set(unnamed_corpora(store))
                guarded = [one for one in guarded if one.kind != UNUSED_CORPUS or one.path in unused]
            freed += store.files.remove(one.path for one in guarded)
        stayed += [f"{store.files.address(one.path)} is in use again and stays" for one in items if one not in guarded]
        if items[0].kind == REMOVED_SAE:
            store.files.remove_empty(folder.parent)
    return freed, stayed


def _look_at(settings: ExtractionSettings, store: ChunkStore, merged: Merged, garbage: Garbage) -> None:
    for folder in asset_folders(store, settings.name):
        _look_for_temporaries(folder, store, garbage)
    for sae in sorted(set(stored_saes(store, settings.name)) - set(settings.saes)):
        passing = {path for one in asset_folders(store, settings.name) for path in temporaries(store, one)}
        paths = [path for path in own_files(store, settings.name, sae) if path not in passing]
        garbage.items.extend(item(REMOVED_SAE, path, store) for path in paths)
        if (settings.name, sae) in merged:
            garbage.notes.append(
                f"rows of {settings.name}/{sae} stay in the database: delete {settings.name} --sae {sae} removes them"
            )
    try:
        plan = ExtractionPlan(settings, store)
        _look_at_chunks(plan, merged, garbage)
    except (ValueError, OSError) as error:
        if any(store.stored_keys(settings.name, asset, sae) for asset, sae in chunk_assets(settings.saes)):
            garbage.notes.append(f"chunk files of {settings.name} are left, it is not known which are current: {error}")


def _look_at_chunks(plan: ExtractionPlan, merged: Merged, garbage: Garbage) -> None:
    settings, store = plan.settings, plan.store
    found = 0
    for asset, sae in chunk_assets(settings.saes):
        current = {chunk.key: plan.fingerprint_of(asset, chunk, sae) for chunk in settings.chunks}
        unwanted = not settings.keep.keeps(asset) and _is_merged(plan, sae, merged)
        for file in store.chunk_files(settings.name, asset, sae):
            if current.get(file.key) != file.fingerprint or _in_an_earlier_form(file, plan, asset, sae):
                garbage.items.append(item(SUPERSEDED, file.path, store))
                found += 1
            elif unwanted:
                garbage.items.append(item(NOT_KEPT, file.path, store))
            elif file.seal and is_old(store, file.path) and not _named_by_table(file, store):
                garbage.items.append(item(TEMPORARY, file.path, store))
        if not settings.keep.keeps(asset) and not unwanted and store.chunk_files(settings.name, asset, sae):
            where = "/".join(part for part in (settings.name, sae, asset) if part)
            garbage.notes.append(f"{where} is kept until the current chunks are merged")
    for sae in settings.saes:
        _look_at_merged_tables(plan, sae, garbage)
    missing = plan.missing_chunks() if found else []
    if missing:
        garbage.notes.append(
            f"{len(missing)} of {len(settings.chunks)} chunks of {settings.name} are not computed with the current "
            "settings yet: going back to earlier settings would compute what is superseded again"
        )


def _look_at_merged_tables(plan: ExtractionPlan, sae: str, garbage: Garbage) -> None:
    """Tables of many chunks that the next merge would not read."""
    current = {(table.key, table.fingerprint) for table in joined_tables(tables_to_merge(plan, sae))}
    for file in plan.store.chunk_files(plan.settings.name, MERGED_TABLES, sae):
        if (file.key, file.fingerprint) not in current:
            garbage.items.append(item(SUPERSEDED, file.path, plan.store))
        elif file.seal and is_old(plan.store, file.path) and not _named_by_table(file, plan.store):
            garbage.items.append(item(TEMPORARY, file.path, plan.store))


def _in_an_earlier_form(file: ChunkFile, plan: ExtractionPlan, asset: ChunkAsset, sae: str | None) -> bool:
    """Whether a file of the current fingerprint is there in a newer form too."""
    return file.seal is None and file.path != plan.chunk_path(asset, plan.settings.chunk(file.key), sae)


def _look_for_temporaries(folder: Path, store: ChunkStore, garbage: Garbage) -> None:
    found = temporaries(store, folder)
    if not found:
        return
    with store.files.nobody_writing(folder) as free:
        old = [path for path in found if free and is_old(store, path)]
    garbage.items.extend(item(TEMPORARY, path, store) for path in old)
    if len(old) < len(found):
        why = "younger than an hour" if free else "in a folder that a process is writing to"
        where = folder.relative_to(store.root)
        number = len(found) - len(old)
        what = "1 temporary" if number == 1 else f"{number} temporaries"
        garbage.notes.append(f"{what} in {where} left: {why}")


def _look_at_corpora(store: ChunkStore, garbage: Garbage) -> None:
    _look_for_temporaries(store.corpora, store, garbage)
    try:
        unnamed = unnamed_corpora(store)
    except UnreadablePointer as error:
        garbage.notes.append(f"all corpora are left: {error}")
        return
    if not unnamed:
        return
    with store.files.nobody_writing(store.corpora) as free:
        old = [path for path in unnamed if free and is_old(store, path)]
    garbage.items.extend(item(UNUSED_CORPUS, path, store) for path in old)
    if len(old) < len(unnamed):
        why = "younger than an hour" if free else "a corpus is being written, it may be one of these"
        garbage.notes.append(f"corpora that no extraction uses are left ({len(unnamed) - len(old)}): {why}")


def _is_merged(plan: ExtractionPlan, sae: str | None, merged: Merged) -> bool:
    """Whether the database holds the merge of the current chunks: of an SAE, or of all that read the activations."""
    name = plan.settings.name
    return all(merged.get((name, one)) == plan.merge_fingerprint(one) for one in ([sae] if sae else plan.settings.saes))


def _named_by_table(file: ChunkFile, store: ChunkStore) -> bool:
    """Whether the table beside a file names it; True if that cannot be read."""
    return any(_names(store, table, str(file.companion), str(file.seal)) for table in tables_of(file.path))


def _names(store: ChunkStore, table: Path, kind: str, seal: str) -> bool:
    try:
        return str(store.record(table).get(kind, "")).startswith(seal)
    except FileNotFoundError:
        return False
    except (DamagedFileError, OSError):
        return True
