"""Made-up merge results of any size, cheap to make: what a load is tested with where a model would take too long."""

import datetime as dt
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import torch

from extraction_assets.database.tables import corpora, extractions
from extraction_assets.database.writing.feature_examples import ExtractionRow, replace_results
from extraction_assets.database.writing.samples import CorpusSamples
from extraction_assets.engine.shapes import TopKTable
from extraction_assets.engine.statistics.registry import FeatureStatistics

NUM_SAMPLES, NUM_POSITIONS = 20_000, 8


class Results(NamedTuple):
    """What a merge hands to the database. Every example has the same activation, which distinguishes the results."""

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


def make_examples(extraction_id: int, activation: float, ranks: list[int]) -> pa.Table:
    """Rows of examples of one feature."""
    one = {"neuron_index": 5, "sample_index": 42, "max_activation": activation, "max_token": "t"}
    lists = {
        "positions": pa.array([[1]] * len(ranks), pa.large_list(pa.int64())),
        "activations": pa.array([[activation]] * len(ranks), pa.large_list(pa.float64())),
    }
    numbers = {"extraction_id": pa.array([extraction_id] * len(ranks), pa.int64()), "rank": pa.array(ranks, pa.int64())}
    return pa.table({**numbers, **{name: pa.array([value] * len(ranks)) for name, value in one.items()}, **lists})


def store_examples(
    connection: sa.Connection,
    store: Callable[[sa.Connection, int, pa.Table], None],
    extraction_id: int,
    activation: float,
    count: int = 400,
) -> None:
    """Rows as an earlier version left them, ``store`` being its way to store examples; the SAE's name is the id."""
    if not connection.scalar(sa.select(sa.func.count()).select_from(corpora)):
        described = {name: getattr(CORPUS, name) for name in ("source", "tokenizer", "packing", "start_sample")}
        grown = {"sample_count": NUM_SAMPLES, "fingerprint": str(NUM_SAMPLES)}
        connection.execute(sa.insert(corpora).values(**described, **grown))
    if not connection.scalar(sa.select(sa.func.count()).where(extractions.c.id == extraction_id)):
        row = make_results("kept", activation, num_features=1, sae=str(extraction_id)).extraction._asdict()
        counts = {"corpus_id": 1, "sample_count": NUM_SAMPLES, "token_count": 1}
        times = dict.fromkeys(("created_at", "finished_at"), dt.datetime.now(dt.UTC))
        given = connection.execute(sa.insert(extractions).values(**row, **counts, **times)).inserted_primary_key
        assert given == (extraction_id,), "extractions are stored in the order of their ids"
    store(connection, extraction_id, make_examples(extraction_id, activation, list(range(count))))


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
