"""Made-up merge results of any size, cheap to make: what a load is tested with where a model would take too long."""

from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
import torch

from extraction_assets.database.load import CorpusSamples, ExtractionRow, replace_results
from extraction_assets.engine.selection.statistics.descriptions import FeatureStatistics
from extraction_assets.engine.shapes import TopKTable

NUM_SAMPLES, NUM_POSITIONS = 20_000, 8


class Results(NamedTuple):
    """What a merge hands to the database. Every example has the same activation, so that results can be told apart."""

    extraction: ExtractionRow
    table: TopKTable
    statistics: FeatureStatistics

    def load(self, connection: sa.Connection) -> int:
        """Replace the stored rows by these, inside an open transaction."""
        return replace_results(connection, self.extraction, CORPUS, self.table, self.statistics, _display)


def make_results(
    fingerprint: str, activation: float, *, num_features: int, top_k: int = 100, sae: str = "sae"
) -> Results:
    """``top_k`` examples for each of ``num_features`` features, at pseudo-random samples, one firing each."""
    count = num_features * top_k
    rows = torch.arange(count)
    activations = torch.full((count,), activation)
    sample_index = rows * 7919 % NUM_SAMPLES
    table = TopKTable(
        rows // top_k, sample_index, activations, torch.arange(count + 1), rows % NUM_POSITIONS, activations
    )
    ones = torch.ones(num_features, dtype=torch.int64)
    statistics = FeatureStatistics(
        sample_count=ones * top_k,
        token_count=ones * top_k,
        max_activation=torch.full((num_features,), activation),
        activation_limbs=torch.zeros(num_features, 32, dtype=torch.int64),
        histogram=torch.ones(num_features, 40, dtype=torch.int64),
        samples_seen=NUM_SAMPLES,
        tokens_seen=NUM_SAMPLES * NUM_POSITIONS,
    )
    extraction = ExtractionRow("made-up", sae, "model", "hook", num_features, NUM_POSITIONS, top_k, {}, fingerprint)
    return Results(extraction, table, statistics)


def _display(ids: list[int]) -> list[str]:
    return [f"t{token_id}" for token_id in ids]


CORPUS = CorpusSamples(
    token_ids=np.tile(np.arange(NUM_POSITIONS), (NUM_SAMPLES, 1)),
    attention_mask=np.ones((NUM_SAMPLES, NUM_POSITIONS), dtype=bool),
    document_ids=["document"],
    document_numbers=np.zeros(NUM_SAMPLES, dtype=np.int64),
    first_tokens=np.zeros(NUM_SAMPLES, dtype=np.int64),
    start_sample=0,
    source="made up",
    tokenizer="none",
    packing="documents",
    content_fingerprint=str,
)
