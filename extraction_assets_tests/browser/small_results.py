"""A small database with hand-made rows: two SAEs of one corpus, a third of another, hostile texts, split characters,
a chat. What a page must show of them can be read here."""

import datetime as dt
from typing import Any

import sqlalchemy as sa

from extraction_assets.database import tables
from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets.engine.selection.intervals import INTERVALS
from extraction_assets_tests.database.stored_rows import store_rows

WHEN = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
LATENT_DIM = 6
HOSTILE = "<script>alert(1)</script>"
HOSTILE_DOCUMENT = 'javascript:alert(1)//"><img src=x onerror=alert(1)>\u202egpj.exe'

SAMPLES: dict[int, tuple[str, int, list[str]]] = {
    7: ("a.txt", 0, ["<|endoftext|>", "The", " cat", " sat", "\n", "    ", "on", " \\xe2\\x80", "\\x9c", "mats", "."]),
    8: ("a.txt", 10, ["<|endoftext|>", " \\xf0", "\\x9f\\x99", "\\x82", " and", " the", " \\xff", " cat"]),
    9: (HOSTILE_DOCUMENT, 0, [HOSTILE, "\\u202e", "\\x1b[2J", '" onmouseover="alert(1)', "&amp;", " cat"]),
    10: ("chat", 0, ["<|im_start|>", "user", "\n", "Hi", "<|im_end|>", "\n", "<|im_start|>", "Hello", "!"]),
}
"""sample_index -> document, first token, tokens."""

EXAMPLES: dict[int, list[list[Any]]] = {
    0: [
        [7, 8.0, " cat", [2, 9], [8.0, 2.0]],
        [8, 8.0, " cat", [7], [8.0]],
        [9, 4.0, " cat", [5, 0], [4.0, 1.0]],
        [10, 0.5, "Hello", [7], [0.5]],
    ],
    1: [[8, 3.0, "\\x9f\\x99", [2, 1], [3.0, 0.25]], [9, 2.0, HOSTILE, [0, 1, 3], [2.0, 1.5, 1.0]]],
    2: [[7, 1.0, " cat", [2, 3], [1.0, 0.5]]],
}
"""neuron_index -> examples of the SAE ``one``. Feature 3 never fires, feature 4 never above ``min_activation``."""

DRAWS: dict[int, list[list[Any]]] = {
    0: [[-1, *EXAMPLES[0][2]], [38, *EXAMPLES[0][3]], [46, *EXAMPLES[0][0]], [46, *EXAMPLES[0][1]]],
    5: [[40, 7, 1.25, "on", [6], [1.25]]],
}


def store_results(url: str) -> None:
    """Put the rows into a new database."""
    with opened_database(url) as engine, write_transaction(engine) as connection:
        for corpus_id in (1, 2):
            _corpus(connection, corpus_id)
        for extraction_id, (name, sae, corpus_id) in enumerate(
            (("small", "one", 1), ("small", "two", 1), ("other", "one", 2)), start=1
        ):
            _extraction(connection, extraction_id, name, sae, corpus_id)
            _features(connection, extraction_id)
            _lists(connection, extraction_id)


def _insert(connection: sa.Connection, table: sa.Table, *rows: dict[str, Any]) -> None:
    store_rows(connection, table, list(rows))


def _corpus(connection: sa.Connection, corpus_id: int) -> None:
    corpus = {"id": corpus_id, "fingerprint": f"corpus{corpus_id}", "sample_count": 100, "start_sample": 0}
    _insert(connection, tables.corpora, corpus | {"source": "made up", "tokenizer": "t", "packing": "documents"})
    for index, (document, first, tokens) in SAMPLES.items():
        where = {"corpus_id": corpus_id, "sample_index": index, "document_id": document, "first_token": first}
        _insert(
            connection, tables.samples, where | {"token_ids": [100 + at for at in range(len(tokens))], "tokens": tokens}
        )
    said = {"corpus_id": corpus_id, "sample_index": 10}
    _insert(
        connection,
        tables.sample_messages,
        said | {"number": 0, "role": "user", "start": 3, "stop": 4},
        said | {"number": 1, "role": "assistant", "start": 7, "stop": 9},
    )


def _extraction(connection: sa.Connection, extraction_id: int, name: str, sae: str, corpus_id: int) -> None:
    row = {
        "id": extraction_id,
        "name": name,
        "sae": sae,
        "corpus_id": corpus_id,
        "model": "/home/somebody/models/gpt",
        "hook": "model.layers.1",
        "latent_dim": LATENT_DIM,
        "sample_count": 100,
        "token_count": 1_000,
        "max_length": 11,
        "top_k_examples": 4,
        "settings": {"saes": {sae: {"path": "/home/somebody/saes/relu"}}},
        "fingerprint": f"result{extraction_id}",
        "created_at": WHEN,
        "finished_at": WHEN,
        "numerics": [{"device": "cpu", "dtype": "float32"}] if extraction_id == 1 else None,
    }
    _insert(connection, tables.extractions, row)


def _features(connection: sa.Connection, extraction_id: int) -> None:
    for index in range(LATENT_DIM):
        _insert(connection, tables.features, {"extraction_id": extraction_id, **statistics(index)})


def statistics(index: int) -> dict[str, Any]:
    """The row of ``features`` of a feature."""
    fires = index != 3
    histogram, population = [0] * 40, [0] * INTERVALS
    if fires:
        histogram[20 + index % 2], histogram[23] = 6, 2
        population[46], population[38], population[40] = 2, 1, 1
    return {
        "neuron_index": index,
        "activation_count": 4 if fires else 0,
        "activation_frequency": 0.04 if fires else 0.0,
        "token_count": 8 if fires else 0,
        "token_frequency": 0.008 if fires else 0.0,
        "max_activation": 8.0 if fires else None,
        "mean_activation": 2.5 if fires else None,
        "std_activation": 1.5 if fires and index != 4 else None,
        "histogram": histogram,
        "interval_samples": None if index == 1 else population,
    }


def _lists(connection: sa.Connection, extraction_id: int) -> None:
    key = {"extraction_id": extraction_id}
    examples = EXAMPLES if extraction_id != 2 else {0: EXAMPLES[0][1:3], 2: EXAMPLES[2]}
    for index, found in examples.items():
        _insert(connection, tables.feature_example_lists, key | {"neuron_index": index, "examples": found})
    if extraction_id == 1:
        for index, found in DRAWS.items():
            _insert(connection, tables.feature_draw_lists, key | {"neuron_index": index, "draws": found})
    drawn = DRAWS if extraction_id == 1 else {}
    features: dict[int, dict[int, float]] = {}
    for source, first in ((examples, 0), (drawn, 1)):
        for index, found in source.items():
            for one in found:
                features.setdefault(one[first], {})[index] = one[first + 1]
    for sample_index, maxima in features.items():
        ordered = sorted(maxima.items(), key=lambda pair: (-pair[1], pair[0]))
        _insert(
            connection,
            tables.sample_feature_lists,
            key | {"sample_index": sample_index, "features": [list(pair) for pair in ordered]},
        )


def store_relations(connection: sa.Connection, merge_fingerprint: str = "result1", scope: str = "sample") -> None:
    """What ``feature_relations`` writes of the SAE ``one``."""
    row = {"extraction_id": 1, "fingerprint": "r", "merge_fingerprint": merge_fingerprint, "scope": scope}
    counted = {"sample_one_in": 16, "sample_count": 6, "token_count": 60, "finished_at": WHEN}
    _insert(connection, tables.relations, row | counted)
    key = {"extraction_id": 1, "mean_activation": 2.0, "share": 0.5}
    for index, place, rank, token, count in (
        (0, "firing", 0, " cat", 5),
        (0, "firing", 1, HOSTILE, 2),
        (0, "next", 0, " sat", 4),
        (1, "firing", 0, "🙂", 3),
    ):
        named = {"neuron_index": index, "place": place, "rank": rank, "token_id": 100 + rank, "token": token}
        _insert(connection, tables.feature_tokens, key | named | {"count": count})
    neighbours = {"neighbours": [[1, 4, 0.5, 2.0], [2, 1, 0.125, -1.0]], "tokens": 7}
    _insert(connection, tables.feature_neighbours, {"extraction_id": 1, "neuron_index": 0} | neighbours)
    flags = (
        ("duplicate", {"of": 2, "jaccard": 0.97, "count": 7}),
        ("one_token", {"token_id": 1, "count": 7, "share": 1.0}),
    )
    for name, detail in flags:
        _insert(
            connection, tables.feature_flags, {"extraction_id": 1, "flag": name, "neuron_index": 0, "detail": detail}
        )


def store_directions(connection: sa.Connection, undefined: str | None = None) -> None:
    """What ``feature_directions`` writes of the SAE ``one``."""
    made = {"name": "small", "sae": "one", "fingerprint": "d", "norm": "RMSNorm's gain", "undefined": undefined}
    _insert(connection, tables.directions, {"id": 1} | made | {"finished_at": WHEN})
    lens: dict[str, Any] = {
        "top": [[5, " dog", 1.25]],
        "bottom": [[6, HOSTILE, -0.5]],
        "mean": 0.1,
        "std": 0.2,
        "minimum": -0.5,
        "maximum": 1.25,
        "histogram": [1, 4, 1],
    }
    nothing = dict.fromkeys(lens)
    for index in (0, 1):
        row = {"directions_id": 1, "neuron_index": index, "neighbours": [["two", 2, 0.75], ["one", 1, 0.5]]}
        _insert(connection, tables.feature_logits, row | (nothing if undefined or index else lens))


def store_label(connection: sa.Connection, label: str | None, mark: str | None, note: str | None) -> None:
    """What a person writes of feature 0 of the SAE ``one``."""
    row = {"name": "small", "sae": "one", "neuron_index": 0, "updated_at": WHEN}
    _insert(connection, tables.feature_labels, row | {"label": label, "mark": mark, "note": note})
