"""Where relations are counted from: all SAE features of the corpus, or the sampled ones beside the tables."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from extraction_assets.catalog import SAE_FEATURES, TOP_K_TABLE
from extraction_assets.engine.relations.parts import TokenPart, token_part
from extraction_assets.engine.shapes import Samples
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import read_features, read_sampled
from extraction_assets.stores.chunk_names import SAMPLED_FILE
from extraction_assets.stores.chunk_record import read_record
from extraction_assets.stores.sealed import damaged

Scope = Literal["corpus", "sample"]


class Source(NamedTuple):
    """Firings with their tokens, chunk by chunk."""

    scope: Scope
    """All samples, or one in ``sample_one_in``."""
    read: Callable[[], Iterator[TokenPart]]
    """Begins a pass over all chunks. Raises DamagedFileError or FileNotFoundError, which names a chunk's file."""


class NothingToCount(NamedTuple):
    """There is no source; why, and what gives one."""

    reason: str


MOST_STORED_BYTES = 2**30
"""Of stored features whose whole corpus is counted: some 130 million firings, which take a minute or two of a core. Of
more than that the sampled ones are counted, if they are there and no further intervals are asked for."""


def find_source(plan: ExtractionPlan, sae: str) -> Source | NothingToCount:
    """The whole corpus where all its SAE features are stored; else the sampled features of all chunks, which are
    preferred where the stored ones are very many (``MOST_STORED_BYTES``).

    Stored features do not say which positions are outliers (``exclude_outlier_norms``): sampled ones leave them out.
    """
    chunks, settings = plan.settings.chunks, plan.settings
    stored = all(plan.chunk_state(SAE_FEATURES, chunk, sae) == "done" for chunk in chunks)
    problems = Counter(filter(None, (_without_sample(plan, chunk, sae) for chunk in chunks)))
    if stored and settings.corpus.exclude_outlier_norms is None and (problems or _are_to_be_counted(plan, sae)):
        return Source("corpus", lambda: (_whole_chunk(plan, chunk, sae) for chunk in chunks))
    if not problems:
        return Source("sample", lambda: (_sampled(plan, chunk, sae) for chunk in chunks))
    kinds = "; ".join(f"{count} of {len(chunks)} chunks {problem}" for problem, count in problems.items())
    return NothingToCount(
        f"{kinds}. `run {settings.name}` computes them again, with `statistics: full`; or keep {SAE_FEATURES}"
    )


def _are_to_be_counted(plan: ExtractionPlan, sae: str) -> bool:
    """Whether stored features are few enough, or further intervals need them."""
    if plan.settings.maximum_intervals or plan.settings.quantile_intervals:
        return True
    paths = (plan.chunk_path(SAE_FEATURES, chunk, sae) for chunk in plan.settings.chunks)
    return sum(path.stat().st_size for path in paths) <= MOST_STORED_BYTES


def _without_sample(plan: ExtractionPlan, chunk: Chunk, sae: str) -> str | None:
    """Why a chunk has no sampled features."""
    if plan.chunk_state(TOP_K_TABLE, chunk, sae) != "done":
        return "have no current table any more"
    if SAMPLED_FILE in read_record(plan.chunk_path(TOP_K_TABLE, chunk, sae)):
        return None
    basic = plan.settings.statistics == "basic"
    return "were computed with `statistics: basic`" if basic else "were computed by an earlier version"


def _whole_chunk(plan: ExtractionPlan, chunk: Chunk, sae: str) -> TokenPart:
    path, samples = plan.chunk_path(SAE_FEATURES, chunk, sae), plan.samples(chunk)
    features, _ = read_features(path, plan.features_fingerprint(chunk, sae))
    if (features.num_samples, features.num_positions) != tuple(samples.token_ids.shape):
        raise damaged(path, f"it holds {features.num_samples} samples, but its chunk {len(samples.token_ids)}")
    return token_part(features, samples)


def _sampled(plan: ExtractionPlan, chunk: Chunk, sae: str) -> TokenPart:
    path, samples = plan.chunk_path(TOP_K_TABLE, chunk, sae), plan.samples(chunk)
    sampled = read_sampled(path)
    if sampled is None:
        raise damaged(path, "it no longer names sampled features")
    rows = sampled.sample_index.numpy() - chunk.first_sample
    if np.any((rows < 0) | (rows >= chunk.num_samples)):
        raise damaged(path, "its sampled features are of another chunk")
    ids, mask, counted, first_sample = samples
    return token_part(
        sampled.rows, Samples(ids[rows], mask[rows], counted[rows], first_sample), sampled.sample_index.numpy()
    )
