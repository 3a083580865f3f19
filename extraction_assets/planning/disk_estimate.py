"""About how much an extraction will still write, and whether it fits."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from extraction_assets.catalog import (
    FEATURE_DIRECTIONS,
    FEATURE_RELATIONS,
    MODEL_ACTIVATIONS,
    SAE_FEATURES,
    TOP_K_TABLE,
    ChunkAsset,
    chunk_assets,
)
from extraction_assets.engine.findings import Finding
from extraction_assets.host.disk import free_bytes, nearest, readable_size
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore

# Of each feature that fires on a token its number and value (4 + 4 bytes), and 8 bytes a token. Before a batch was
# looked at, 64 of them a token, more than most SAEs have.
_BYTES_PER_FIRING, _BYTES_PER_TOKEN = 8, 8
_ASSUMED_L0 = 64.0
_BYTES_PER_EXAMPLE = 40
"""Of the top-k table; 16 to 23 in the demo."""
_BYTES_OF_STATISTICS, _BYTES_OF_BASIC_STATISTICS = 200, 130
"""A feature's, without what is 0: 116 in the demo, and more where its firings spread over more powers of two."""
_INTERVALS_OF_A_FEATURE = 10
"""Into which the maxima of a feature fall, of 80: five octaves, as in the demo."""

# Of the database, pages and indexes included, as the demo has them in SQLite (4,096 features, K = 100, 4.4 firings an
# example): lists of examples 87 bytes an example, of draws 78, and 24 for either in the lists by sample.
_BYTES_PER_STORED_EXAMPLE, _BYTES_PER_STORED_DRAW = 111, 102
_BYTES_PER_FEATURE = 600
"""Statistics with their indexes, and the lists of strongest tokens."""
_BYTES_PER_SAMPLE_TOKEN = 24
"""Ids and texts of a sample that a row names: 14, and 10 in the index of texts."""
_BYTES_OF_RELATIONS = 3_600
"""A feature: 40 rows of top tokens with their index 2,900, neighbours and flags 700."""
_BYTES_OF_DIRECTIONS = 2_100
"""A feature."""

Part = tuple[ChunkAsset, str | None]
"""A chunk asset and the SAE that it belongs to, if to one."""

_ELSEWHERE = "keep the results in a database on another disk (EXTRACTION_DATABASE_URL)"
_LOWER = {
    MODEL_ACTIVATIONS: f"write no model activations (`keep: {{{MODEL_ACTIVATIONS}: false}}` and `run NAME --missing`, "
    "or select the other assets alone)",
    SAE_FEATURES: f"write no SAE features (`keep: {{{SAE_FEATURES}: false}}` and `run NAME --missing`, or select the "
    "other assets alone)",
    TOP_K_TABLE: "lower top_k_examples or interval_examples",
    "results": "lower top_k_examples or interval_examples",
    FEATURE_RELATIONS: _ELSEWHERE,
    FEATURE_DIRECTIONS: _ELSEWHERE,
}


class NotEnoughDiskError(ValueError):
    """The files of a run do not fit on the disk; the message says how much is needed, where, and what lowers it."""


class Sizes(NamedTuple):
    """What is known of a model and its SAEs."""

    widths: dict[str, int]
    """D of every hook."""
    latent_dims: dict[str, int]
    """F of every SAE."""
    bytes_per_activation: int | None = None
    """Of the model's dtype; None if it is not known, then 4."""
    mean_l0: Mapping[str, float] = {}
    """Features that fire on a token, of the SAEs that were tried on a batch."""


class Estimate(NamedTuple):
    """About how many bytes of an asset, or of the results of a merge, are still to be written."""

    asset: str
    sae: str | None
    size: float

    @property
    def name(self) -> str:
        return f"{self.sae}/{self.asset}" if self.sae else self.asset


def estimate_files(
    settings: ExtractionSettings, store: ChunkStore, sizes: Sizes, to_come: Mapping[Part, int]
) -> list[Estimate]:
    """Bytes of chunk files for the samples ``to_come`` of each asset, whose hooks and SAEs ``sizes`` knows.

    The size of a sample is measured on existing files if the numbers do not give it.
    """
    found = []
    for (asset, sae), samples in to_come.items():
        known = sizes.bytes_per_activation if asset == MODEL_ACTIVATIONS else sae in sizes.mean_l0
        measured = None if known else _measured_per_sample(settings, store, asset, sae)
        found.append(Estimate(asset, sae, samples * (measured or _per_sample(settings, sizes, asset, sae))))
    return found


def estimate_database(settings: ExtractionSettings, sizes: Sizes, to_come: Mapping[Part, int]) -> list[Estimate]:
    """Bytes of the results database for the SAEs that have tables to come, at most: the examples and draws of every
    feature, what is counted of them and what their weights say; and the samples that they name, once."""
    count = settings.evaluation_samples
    drawn, kept = _draws_per_feature(settings, count), min(settings.top_k_examples, count)
    rows = kept * _BYTES_PER_STORED_EXAMPLE + drawn * _BYTES_PER_STORED_DRAW + _BYTES_PER_FEATURE
    saes = [sae for asset, sae in to_come if asset == TOP_K_TABLE and sae is not None]
    a_feature = {"results": rows, FEATURE_RELATIONS: _BYTES_OF_RELATIONS, FEATURE_DIRECTIONS: _BYTES_OF_DIRECTIONS}
    found = [Estimate(asset, sae, sizes.latent_dims[sae] * size) for sae in saes for asset, size in a_feature.items()]
    named = min(count, sum(sizes.latent_dims[sae] for sae in saes) * (kept + drawn))
    texts = named * settings.corpus.max_length * _BYTES_PER_SAMPLE_TOKEN
    return [*found, Estimate("results", None, texts)] if saes else []


def samples_to_come(settings: ExtractionSettings, store: ChunkStore) -> dict[Part, int]:
    """Samples of the chunks that are not on disk, for each asset that is missing some."""
    current, found = _current_keys(settings, store), dict[Part, int]()
    for asset, sae in chunk_assets(settings.saes):
        stored = current(asset, sae)
        missing = sum(chunk.num_samples for chunk in settings.chunks if chunk.key not in stored)
        if missing:
            found[asset, sae] = missing
    return found


def disk_findings(estimates: Iterable[Estimate], folder: Path | None, extraction: str) -> list[Finding]:
    """Nothing if ``folder`` has room for all that is estimated, or is None (object storage); else what is needed and
    what lowers it."""
    found = list(estimates)
    if folder is None:
        return []
    total, free = sum(one.size for one in found), free_bytes(folder)
    if total <= free:
        return []
    largest = max(found, key=lambda one: one.size)
    text = (
        f"about {readable_size(total)} are to be written to {folder}, where {readable_size(free)} are free: "
        f"{listed(found)}. Make room there (`extraction-assets clean`), move EXTRACTION_HOME to a larger disk, or "
        f"{_LOWER[largest.asset].replace('NAME', extraction)}, run fewer chunks at once (--chunks), or lower "
        "evaluation_samples"
    )
    return [Finding("error", text, NotEnoughDiskError)]


def listed(estimates: Iterable[Estimate]) -> str:
    """``model_activations 1.1 TB, layer12/top_k_table 3.0 GB``, the largest first."""
    ordered = sorted(estimates, key=lambda one: -one.size)
    return ", ".join(f"{one.name} {readable_size(one.size)}" for one in ordered)


def same_disk(one: Path, other: Path) -> bool:
    """Whether two folders, or the nearest above them that exist, lie on one file system."""
    return os.stat(nearest(one)).st_dev == os.stat(nearest(other)).st_dev


def _current_keys(settings: ExtractionSettings, store: ChunkStore) -> Callable[[ChunkAsset, str | None], set[str]]:
    """Which chunks of an asset need not be computed: those of the current fingerprint.

    If the corpus has to be made first, the fingerprint is not known yet: then those of any fingerprint.
    """
    try:
        plan = ExtractionPlan(settings, store)
    except (ValueError, OSError):
        return lambda asset, sae: store.stored_keys(settings.name, asset, sae)
    return lambda asset, sae: {key for key, state in plan.chunk_states(asset, sae).items() if state == "done"}


def _measured_per_sample(
    settings: ExtractionSettings, store: ChunkStore, asset: ChunkAsset, sae: str | None
) -> float | None:
    """Bytes a sample takes in the files that are there."""
    samples_of = {chunk.key: chunk.num_samples for chunk in settings.chunks}
    stored = [file for file in store.chunk_files(settings.name, asset, sae) if file.key in samples_of]
    keys = {file.key for file in stored}
    if not keys:
        return None
    generations = max(1, sum(file.seal is None for file in stored) // len(keys))
    samples = sum(samples_of[key] for key in keys)
    return sum(store.files.length(file.path) for file in stored) / generations / samples


def _per_sample(settings: ExtractionSettings, sizes: Sizes, asset: ChunkAsset, sae: str | None) -> float:
    length = settings.corpus.max_length
    if asset == MODEL_ACTIVATIONS:
        return length * sum(sizes.widths.values()) * (sizes.bytes_per_activation or 4)
    firing = length * sizes.mean_l0.get(str(sae), _ASSUMED_L0)
    if asset == SAE_FEATURES:
        return length * _BYTES_PER_TOKEN + firing * _BYTES_PER_FIRING
    latent_dim, chunk = sizes.latent_dims[str(sae)], min(settings.chunk_size, settings.evaluation_samples)
    full = settings.statistics == "full"
    examples: float = (min(settings.top_k_examples, chunk) + _draws_per_feature(settings, chunk)) * latent_dim
    if sae in sizes.mean_l0:
        # A sample cannot have more examples than firings, and each of them is drawn twice at most.
        examples = min(examples, chunk * firing * (3 if full else 1))
    sampled = (length * _BYTES_PER_TOKEN + firing * _BYTES_PER_FIRING) / settings.sample_one_in if full else 0.0
    statistics = latent_dim * (_BYTES_OF_STATISTICS if full else _BYTES_OF_BASIC_STATISTICS)
    return (examples * _BYTES_PER_EXAMPLE + statistics) / chunk + sampled


def _draws_per_feature(settings: ExtractionSettings, samples: int) -> int:
    """About how many examples of a feature are drawn from so many samples: none twice from an interval or from all."""
    if settings.statistics == "basic":
        return 0
    return min(settings.random_examples + _INTERVALS_OF_A_FEATURE * settings.interval_examples, 2 * samples)
