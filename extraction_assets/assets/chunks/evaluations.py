"""The checks of a chunk that has been computed: the legacy loop on a part of it, and what each of its tables shows."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import dagster as dg

from extraction_assets.assets.chunks.checks import (
    BOS_DOES_NOT_DOMINATE,
    IS_SPARSE,
    MATCHES_LEGACY,
    RECONSTRUCTS,
    chunk_evaluation,
)
from extraction_assets.assets.chunks.compute import QueuedChunk
from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.early_checks.batch import first_or_special
from extraction_assets.engine.chunk_pass.sae_pass import RECONSTRUCTION_SAMPLES
from extraction_assets.engine.chunk_pass.sae_result import SaeResult
from extraction_assets.engine.preflight.sanity import bos_share
from extraction_assets.engine.preflight.verdicts import (
    Verdict,
    bos_verdict,
    reconstruction_verdict,
    sparsity_verdict,
)
from extraction_assets.engine.selection.sequential_draws import DrawsToCompare
from extraction_assets.engine.selection.sequential_loop import LegacyComparison, compare_with_legacy
from extraction_assets.engine.statistics.registry import FeatureStatistics
from extraction_assets.execution.keys import sae_key
from extraction_assets.planning.draw_rules import draw_rules
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import SaeSettings

PROBE_FEATURES = 512
PROBE_SHARE_OF_TIME = 0.02


class SaeOutcome(NamedTuple):
    """A chunk's results for one SAE, with their score and record."""

    result: SaeResult
    variance_explained: float | None
    """None of an SAE that encodes only."""
    legacy: LegacyComparison
    numerics: dict[str, Any]
    """Of the pass that encoded the features, which may be an earlier one."""


def sae_outcome(
    plan: ExtractionPlan, queued: QueuedChunk, sae: str, result: SaeResult, chunk_seconds: float
) -> SaeOutcome:
    """A result with the score and the numerics record of its features, which may have been read from a file, after
    comparing a part of it with the legacy loop."""
    legacy = _compare(plan, queued, result, PROBE_SHARE_OF_TIME * chunk_seconds)
    stored = queued.stored.get(sae)
    if stored is not None:
        return SaeOutcome(result, stored["variance_explained"], legacy, stored["numerics"])
    numerics = {**queued.numerics, "encode_tile_tokens": result.encode_tile_tokens}
    return SaeOutcome(result, result.variance_explained, legacy, numerics)


def evaluate(
    plan: ExtractionPlan, queued: QueuedChunk, outcomes: Mapping[str, SaeOutcome]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Every check of every table that the run computes."""
    for name in sorted(str(target.sae) for target in queued.targets if target.asset == TOP_K_TABLE):
        table, outcome, chosen = sae_key(plan.settings, name, TOP_K_TABLE), outcomes[name], plan.settings.saes[name]
        pairs = {"pairs_compared": outcome.legacy.pairs, "mismatches": outcome.legacy.mismatches}
        yield chunk_evaluation(table, MATCHES_LEGACY, queued.chunk.key, not outcome.legacy.mismatches, pairs)
        for check, verdict in (
            (RECONSTRUCTS, _reconstruction(queued, outcome, chosen)),
            (IS_SPARSE, _sparsity(outcome.result.statistics, chosen)),
            (BOS_DOES_NOT_DOMINATE, _bos(plan, queued, outcome.result, chosen)),
        ):
            yield chunk_evaluation(
                table, check, queued.chunk.key, verdict.passed, verdict.metadata, verdict.description
            )


def mean_l0(statistics: FeatureStatistics) -> float:
    """Features that fire on a counted token, on average."""
    return float(statistics.token_count.sum()) / max(1, statistics.tokens_seen)


def _compare(plan: ExtractionPlan, queued: QueuedChunk, result: SaeResult, seconds: float) -> LegacyComparison:
    settings, samples, rules = plan.settings, queued.samples, draw_rules(plan.settings)
    latent_dim = len(result.statistics.sample_count)
    return compare_with_legacy(
        result.table,
        result.probe,
        samples.counted,
        queued.rng.sample(range(latent_dim), min(PROBE_FEATURES, latent_dim)),
        first_sample=samples.first_sample,
        top_k=settings.top_k_examples,
        min_activation=settings.min_activation,
        seconds=seconds,
        draws=None if result.draws is None or rules is None else DrawsToCompare(result.draws, rules),
    )


def _reconstruction(queued: QueuedChunk, outcome: SaeOutcome, chosen: SaeSettings) -> Verdict:
    """Of the chunk's first samples."""
    tokens = int(queued.samples.counted[:RECONSTRUCTION_SAMPLES].sum())
    return reconstruction_verdict(outcome.variance_explained, chosen.minimum_variance_explained, tokens)


def _sparsity(statistics: FeatureStatistics, chosen: SaeSettings) -> Verdict:
    latent_dim, firing = len(statistics.sample_count), int((statistics.sample_count > 0).sum())
    limit = chosen.l0_limit(latent_dim)
    return sparsity_verdict(mean_l0(statistics), limit, firing, latent_dim, statistics.tokens_seen)


def _bos(plan: ExtractionPlan, queued: QueuedChunk, result: SaeResult, chosen: SaeSettings) -> Verdict:
    """Where the strongest tokens of the examples lie."""
    samples, rows = queued.samples, queued.chunk.rows
    marked = first_or_special(plan.corpus.arrays.special_tokens_mask[rows])
    share = bos_share(result.table, marked, samples.first_sample)
    positions = float((marked & samples.counted).sum()) / max(1, int(samples.counted.sum()))
    return bos_verdict(share, positions, chosen.maximum_bos_share)
