"""What follows the pass over a chunk, in the writer's thread: comparing with the legacy loop, checking, writing."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
from extraction_assets.catalog import MODEL_ACTIVATIONS, SAE_FEATURES, TOP_K_TABLE
from extraction_assets.early_checks.batch import first_or_special
from extraction_assets.engine.chunk_pass.gpu_pass import ChunkResult
from extraction_assets.engine.chunk_pass.sae_pass import RECONSTRUCTION_SAMPLES, SaeResult
from extraction_assets.engine.preflight.sanity import FEW_TOKENS, bos_dominates, bos_share, is_sparse
from extraction_assets.engine.selection.legacy import LegacyComparison, compare_with_legacy
from extraction_assets.engine.shapes import FeatureStatistics
from extraction_assets.execution.keys import Target, sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.stores.chunk_files import write_activations, write_features, write_table

_WRITERS = 4

PROBE_FEATURES = 512
PROBE_SHARE_OF_TIME = 0.02


class Written(NamedTuple):
    """A file that has become durable."""

    target: Target
    metadata: dict[str, Any]


class Finished(NamedTuple):
    """A chunk whose files are durable, or that was refused."""

    written: list[Written]
    evaluations: list[dg.AssetCheckEvaluation]

    def refuse(self) -> None:
        """Fails the run where a check failed that has to pass; then nothing of the chunk has been stored."""
        failed = [one for one in self.evaluations if one.blocking and not one.passed]
        if failed:
            first = failed[0]
            raise dg.Failure(
                f"check {first.check_name} failed for chunk {first.partition} of {first.asset_key.to_user_string()}: "
                f"{first.description or first.metadata}; nothing of this chunk is stored",
                allow_retries=False,
            )


def finish_chunk(plan: ExtractionPlan, computed: QueuedChunk) -> Finished:
    """Waits for a chunk's results, checks them and writes the files that were asked for.

    The tables come last: where they are, all is. Nothing is written where a check fails that has to pass.
    """
    outcome = _Outcome(plan, computed)
    if not all(one.passed for one in outcome.evaluations if one.blocking):
        return Finished([], outcome.evaluations)
    tables = [target for target in computed.targets if target.asset == TOP_K_TABLE]
    others = [target for target in computed.targets if target.asset != TOP_K_TABLE]
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="chunk-file") as files:
        written = [one for group in (others, tables) for one in files.map(outcome.write, group)]
    return Finished(written, outcome.evaluations)


class _SaeOutcome(NamedTuple):
    variance_explained: float
    legacy: LegacyComparison
    numerics: dict[str, Any]
    """Of the pass that encoded the features, be it an earlier one."""


class _Outcome:
    """A chunk's results with what is known about them."""

    def __init__(self, plan: ExtractionPlan, computed: QueuedChunk) -> None:
        self._plan, self._computed = plan, computed
        self._result: ChunkResult = computed.unfinished.result()
        self._saes: dict[str, _SaeOutcome] = {}
        for name, own in self._result.saes.items():
            stored = computed.stored.get(name)
            variance = stored["variance_explained"] if stored else own.variance_explained
            encoded = {**computed.numerics, "encode_tile_tokens": own.encode_tile_tokens}
            numerics = stored["numerics"] if stored else encoded
            self._saes[name] = _SaeOutcome(variance, self._compare(own), numerics)
        self.evaluations = list(self._evaluate())

    def write(self, target: Target) -> Written:
        """Writes one file."""
        key = self._computed.key
        path = self._plan.chunk_path(target.asset, key, target.sae)
        fingerprint = self._plan.chunk_fingerprint(target.asset, key, target.sae)
        record = self._record(fingerprint, target.sae)
        started = time.perf_counter()
        if target.asset == MODEL_ACTIVATIONS:
            write_activations(path, self._result.activations, record)
        elif target.asset == SAE_FEATURES:
            features = self._result.saes[str(target.sae)].features
            assert features is not None, "features are kept where their asset is selected"
            write_features(path, features, record)
        else:
            own = self._result.saes[str(target.sae)]
            write_table(path, own.table, own.statistics, record)
        seconds = time.perf_counter() - started
        return Written(target, self._metadata(path, fingerprint, target.sae, seconds))

    def _compare(self, result: SaeResult) -> LegacyComparison:
        settings, samples, rng = self._plan.settings, self._computed.samples, self._computed.rng
        latent_dim = len(result.statistics.sample_count)
        return compare_with_legacy(
            result.table,
            result.probe,
            samples.counted,
            rng.sample(range(latent_dim), min(PROBE_FEATURES, latent_dim)),
            first_sample=samples.first_sample,
            top_k=settings.top_k_examples,
            min_activation=settings.min_activation,
            seconds=PROBE_SHARE_OF_TIME * self._result.seconds,
        )

    def _evaluate(self) -> Iterator[dg.AssetCheckEvaluation]:
        settings, key = self._plan.settings, self._computed.key
        for name in sorted(str(target.sae) for target in self._computed.targets if target.asset == TOP_K_TABLE):
            asset, own = sae_key(settings, name, TOP_K_TABLE), self._saes[name]
            pairs = {"pairs_compared": own.legacy.pairs, "mismatches": own.legacy.mismatches}
            yield chunk_evaluation(asset, MATCHES_LEGACY, key, not own.legacy.mismatches, pairs)
            yield self._reconstruction(asset, name)
            yield self._sparsity(asset, name)
            yield self._bos(asset, name)

    def _reconstruction(self, table: dg.AssetKey, sae: str) -> dg.AssetCheckEvaluation:
        """What the SAE explains of the chunk's first samples. Where these count next to nothing, as at the end of a
        corpus, the check says that it has nothing to judge by."""
        least = self._plan.settings.saes[sae].minimum_variance_explained
        explained = self._saes[sae].variance_explained
        tokens = int(self._computed.samples.counted[:RECONSTRUCTION_SAMPLES].sum())
        passed, said = explained >= least, f"explains {explained:.3f} of the variance, at least {least} is asked for"
        if math.isnan(explained):
            passed, said = tokens < FEW_TOKENS, f"nothing to judge by: {tokens} positions of the first samples count"
            said += "" if passed else ", and the activations do not vary there"
        metadata = {"variance_explained": explained, "minimum": least}
        return chunk_evaluation(table, RECONSTRUCTS, self._computed.key, passed, metadata, said)

    def _sparsity(self, table: dg.AssetKey, sae: str) -> dg.AssetCheckEvaluation:
        """How many features fire. Nothing to say of a chunk without a counted position."""
        found = self._result.saes[sae].statistics
        latent_dim, firing = len(found.sample_count), int((found.sample_count > 0).sum())
        limit = self._plan.settings.saes[sae].l0_limit(latent_dim)
        metadata = {"mean_l0": _mean_l0(found), "maximum_l0": limit, "features_firing": firing}
        return chunk_evaluation(
            table,
            IS_SPARSE,
            self._computed.key,
            not found.tokens_seen or is_sparse(_mean_l0(found), limit),
            {**metadata, "dead_fraction": 1 - firing / latent_dim},
            f"{_mean_l0(found):.1f} features fire on a token on average, between 0 and {limit:g} are expected; "
            f"{firing} of {latent_dim} fire somewhere in the chunk",
        )

    def _bos(self, table: dg.AssetKey, sae: str) -> dg.AssetCheckEvaluation:
        """Where the strongest tokens of the examples lie."""
        samples, limit = self._computed.samples, self._plan.settings.saes[sae].maximum_bos_share
        rows = self._plan.settings.chunk_rows(self._computed.key)
        marked = first_or_special(self._plan.corpus.arrays.special_tokens_mask[rows])
        share = bos_share(self._result.saes[sae].table, marked, samples.first_sample)
        positions = float((marked & samples.counted).sum()) / max(1, int(samples.counted.sum()))
        return chunk_evaluation(
            table,
            BOS_DOES_NOT_DOMINATE,
            self._computed.key,
            not bos_dominates(share, positions, limit),
            {"bos_share": share, "maximum_bos_share": limit, "bos_positions": positions},
            f"{share:.1%} of the examples are strongest at a first or special token, which are {positions:.1%} of the "
            f"counted positions; more than {limit:.0%} are not expected",
        )

    def _record(self, fingerprint: str, sae: str | None) -> dict[str, Any]:
        """What a chunk's files say of themselves: no times and no sizes that differ from run to run."""
        record: dict[str, Any] = {"fingerprint": fingerprint, "numerics": self._numerics(sae)}
        if sae is not None:
            record["variance_explained"] = self._saes[sae].variance_explained
            record["all_finite"] = self._result.saes[sae].all_finite
            record["checks"] = {
                evaluation.check_name: evaluation.passed
                for evaluation in self.evaluations
                if evaluation.asset_key.path[1] == sae
            }
        return record

    def _numerics(self, sae: str | None) -> dict[str, Any]:
        return self._computed.numerics if sae is None else self._saes[sae].numerics

    def _metadata(self, path: Path, fingerprint: str, sae: str | None, seconds_write: float) -> dict[str, Any]:
        """Metadata of a materialization event; docs/operating.md says what each is."""
        tokens = int(self._computed.samples.attention_mask.sum())
        metadata: dict[str, Any] = {
            "samples": len(self._computed.samples.token_ids),
            "tokens": tokens,
            "seconds": self._result.seconds,
            "samples_per_second": len(self._computed.samples.token_ids) / self._result.seconds,
            "tokens_per_second": tokens / self._result.seconds,
            **{f"seconds_{stage}": seconds for stage, seconds in self._result.stage_seconds.items()},
            "seconds_write": seconds_write,
            **self._computed.usage.metadata(),
            "bytes": path.stat().st_size,
            "path": dg.MetadataValue.path(str(path)),
            "fingerprint": fingerprint,
            "numerics": dg.MetadataValue.json(self._numerics(sae)),
        }
        if sae is not None:
            statistics = self._result.saes[sae].statistics
            metadata["variance_explained"] = self._saes[sae].variance_explained
            metadata |= statistics_metadata(statistics)
            metadata["examples"] = len(self._result.saes[sae].table.neuron_index)
        return metadata


def statistics_metadata(statistics: FeatureStatistics) -> dict[str, Any]:
    """What the statistics of a chunk put into its metadata."""
    return {"mean_l0": _mean_l0(statistics), "features_firing": int((statistics.sample_count > 0).sum())}


def _mean_l0(statistics: FeatureStatistics) -> float:
    """Features that fire on a counted token, on average."""
    return float(statistics.token_count.sum()) / max(1, statistics.tokens_seen)
