"""Whether the chunks of an SAE can be merged: their tables are there, current, and have passed their checks."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from extraction_assets.assets.chunks.checks import CHUNK_CHECKS
from extraction_assets.assets.examples.checks import NONE_MISSING, MergeRefused
from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import check_files
from extraction_assets.stores.chunk_names import COMPANIONS
from extraction_assets.stores.chunk_record import Record, checks_of
from extraction_assets.stores.chunk_store import ChunkState


def records_of_chunks(plan: ExtractionPlan, sae: str) -> dict[str, Record]:
    """The records of all chunks' tables by their chunks' keys. Raises MergeRefused, which names every chunk that is
    missing, made from other inputs, or not checked; DamagedFileError."""
    states = plan.chunk_states(TOP_K_TABLE, sae)
    with ThreadPoolExecutor(plan.store.files.readers, "record reader") as pool:  # one after the other from a URL: hours
        look = partial(_record_or_problem, plan, sae)
        read = pool.map(look, plan.settings.chunks, states.values())
        found = dict(zip(states, read, strict=True))
    problems = {key: one for key, one in found.items() if isinstance(one, str)}
    if problems:
        kinds = ", ".join(f"{count} {problem}" for problem, count in Counter(problems.values()).items())
        named = "; ".join(f"{key}: {problem}" for key, problem in list(problems.items())[:20])
        raise MergeRefused(
            NONE_MISSING,
            f"{len(problems)} of {len(found)} chunks of {plan.settings.name}/{sae} cannot be merged "
            f"({kinds}). {named}. Materialize these chunks of {plan.settings.name}/{sae}/{TOP_K_TABLE} first",
        )
    return {key: one for key, one in found.items() if not isinstance(one, str)}


def failed_check(record: Record) -> str | None:
    """The required checks that are not recorded as passed in a table's record."""
    checks = checks_of(record)
    failed = [name for name in CHUNK_CHECKS if not checks.get(name)]
    return f"check {failed[0]} {'failed' if failed[0] in checks else 'is absent'}" if failed else None


def _record_or_problem(plan: ExtractionPlan, sae: str, chunk: Chunk, state: ChunkState) -> Record | str:
    """The record of a chunk's table, or why it cannot be merged."""
    if state != "done":
        return "missing" if state == "missing" else "made from other inputs or settings"
    path = plan.chunk_path(TOP_K_TABLE, chunk, sae)
    record = plan.store.record(path)
    problem = failed_check(record)
    if problem:
        with plan.store.reading(path, *COMPANIONS) as copy:
            check_files(copy, plan.table_fingerprint(chunk, sae))  # or is it damaged?
    return problem or record
