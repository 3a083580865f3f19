"""The checks of chunks that are already stored, told again without computing anything."""

import logging
from collections.abc import Collection, Iterator, Sequence

import dagster as dg

from extraction_assets.assets.keys import sae_key
from extraction_assets.plan import ExtractionPlan
from extraction_assets.stores.chunk_files import read_record


def recorded_checks(
    plan: ExtractionPlan, checks: Collection[dg.AssetCheckKey], keys: Sequence[str], logger: logging.Logger
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the stored tables of chunks ``keys`` say of their own ``checks``; others are passed over.

    A chunk is checked while it is computed, and a chunk whose check fails is not stored, so this is what the merge
    reads. Raises dg.Failure where no chunk of a check's table is stored.
    """
    for check in sorted(checks, key=lambda check: check.to_user_string()):
        found = list(_of_one_check(plan, check, keys))
        if not found:
            raise dg.Failure(
                f"no chunk of {check.asset_key.to_user_string()} is stored, so there is nothing to check: "
                "chunks are checked while they are materialized",
                allow_retries=False,
            )
        logger.info("%s: %d of %d chunks are stored and carry it", check.name, len(found), len(keys))
        yield from found


def _of_one_check(
    plan: ExtractionPlan, check: dg.AssetCheckKey, keys: Sequence[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    sae = next(name for name in plan.settings.saes if check.asset_key == sae_key(plan.settings, name, "top_k_table"))
    for key in keys:
        if plan.chunk_state("top_k_table", key, sae) != "done":
            continue
        record = read_record(plan.chunk_path("top_k_table", key, sae))
        if check.name in record["checks"]:
            yield dg.AssetCheckEvaluation(
                asset_key=check.asset_key,
                check_name=check.name,
                passed=record["checks"][check.name],
                metadata={"recorded_again": True},
                description=f"as found when the chunk was computed, with {record['variance_explained']:.3f} of the "
                "variance explained; nothing was computed again",
                blocking=True,
                partition=key,
            )
