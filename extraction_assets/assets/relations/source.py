"""Where relations are counted from: all SAE features of the corpus, or the sampled ones beside the tables."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from extraction_assets.catalog import SAE_FEATURES, TOP_K_TABLE
from extraction_assets.database.backends.prefetch import prefetch
from extraction_assets.engine.relations.parts import TokenPart, token_part
from extraction_assets.engine.shapes import Samples
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.planning.stored_relations import NothingToCount, Scope, scope_to_count
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import read_features, read_sampled
from extraction_assets.stores.chunk_names import SAMPLED_FILE
from extraction_assets.stores.sealed import damaged


class Source(NamedTuple):
    """Firings with their tokens, chunk by chunk."""

    scope: Scope
    read: Callable[[], Iterator[TokenPart]]
    """Begins a pass over all chunks. Raises DamagedFileError or FileNotFoundError, which names a chunk's file."""


def find_source(plan: ExtractionPlan, sae: str) -> Source | NothingToCount:
    """What ``scope_to_count`` says, to be read, a chunk ahead of its use."""
    scope = scope_to_count(plan, sae)
    if isinstance(scope, NothingToCount):
        return scope
    read_one = _whole_chunk if scope == "corpus" else _sampled
    return Source(scope, lambda: prefetch(read_one(plan, chunk, sae) for chunk in plan.settings.chunks))


def _whole_chunk(plan: ExtractionPlan, chunk: Chunk, sae: str) -> TokenPart:
    path, samples = plan.chunk_path(SAE_FEATURES, chunk, sae), plan.samples(chunk)
    with plan.store.reading(path) as copy:
        features, _ = read_features(copy, plan.features_fingerprint(chunk, sae))
    if (features.num_samples, features.num_positions) != tuple(samples.token_ids.shape):
        raise damaged(path, f"it holds {features.num_samples} samples, but its chunk {len(samples.token_ids)}")
    return token_part(features, samples)


def _sampled(plan: ExtractionPlan, chunk: Chunk, sae: str) -> TokenPart:
    path, samples = plan.chunk_path(TOP_K_TABLE, chunk, sae), plan.samples(chunk)
    with plan.store.reading(path, SAMPLED_FILE) as copy:
        sampled = read_sampled(copy)
    if sampled is None:
        raise damaged(path, "it no longer names sampled features")
    rows = sampled.sample_index.numpy() - chunk.first_sample
    if np.any((rows < 0) | (rows >= chunk.num_samples)):
        raise damaged(path, "its sampled features are of another chunk")
    ids, mask, counted, first_sample = samples
    return token_part(
        sampled.rows, Samples(ids[rows], mask[rows], counted[rows], first_sample), sampled.sample_index.numpy()
    )
