"""One feature a line: figures are the database's, every text survives, and each line follows the schema."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.database.tables import features, samples
from extraction_assets.engine.statistics.registry import COLUMNS
from extraction_assets.exports.formats.jsonl import schema
from extraction_assets.exports.source import ExportSource
from extraction_assets_tests.browser.small_results import DRAWS, EXAMPLES, HOSTILE, SAMPLES
from extraction_assets_tests.exports.schemas import errors_of
from extraction_assets_tests.exports.written import json_lines, source_of, write


@pytest.fixture
def lines(small: sa.Connection, tmp_path: Path) -> list[dict[str, Any]]:
    """The lines of the SAE ``one``."""
    write(source_of(small), "jsonl", tmp_path / "out")
    return json_lines(tmp_path / "out" / "batch-0.jsonl.gz")


def test_statistics_equal_the_rows_of_the_database(small: sa.Connection, lines: list[dict[str, Any]]) -> None:
    rows = small.execute(sa.select(features).where(features.c.extraction_id == 1).order_by(features.c.neuron_index))
    for line, row in zip(lines, rows, strict=True):
        kept = {name: value for name, value in row._mapping.items() if name in line}
        assert len(kept) == len(COLUMNS) + 1
        assert {name: line[name] for name in kept} == kept


def test_examples_and_draws_have_their_samples_with_every_token(lines: list[dict[str, Any]]) -> None:
    for index, line in enumerate(lines):
        for key, expected in (("examples", EXAMPLES.get(index, [])), ("draws", DRAWS.get(index, []))):
            names = ["interval"] * (key == "draws") + ["sample_index", "max_activation", "max_token"]
            names += ["positions", "activations"]
            assert [[one[name] for name in names] for one in line[key] or []] == expected
            for one in line[key] or []:
                document, first, tokens = SAMPLES[one["sample_index"]]
                assert (one["document_id"], one["first_token"], one["tokens"]) == (document, first, tokens)
                assert one["token_ids"] == [100 + at for at in range(len(tokens))]


def test_relations_directions_and_labels_stand_in_the_line(lines: list[dict[str, Any]]) -> None:
    line = lines[0]
    assert line["label"] == {"label": "cats", "mark": "interesting", "note": "a note"}
    assert line["flags"]["duplicate"]["of"] == 2
    assert [token["token"] for token in line["top_tokens"]] == [" cat", HOSTILE]
    assert line["top_tokens"][0]["count"] == 5
    assert line["neighbours"][0] == {"neuron_index": 1, "tokens": 4, "jaccard": 0.5, "pmi": 2.0}
    assert line["logits"]["top"] == [{"token_id": 5, "token": " dog", "logit": 1.25}]
    assert line["nearest"][0] == {"sae": "two", "neuron_index": 2, "cosine": 0.75}


def test_what_is_not_computed_is_null_and_what_is_empty_is_not(small: sa.Connection, tmp_path: Path) -> None:
    write(source_of(small, sae="two"), "jsonl", tmp_path / "out")
    line, other = json_lines(tmp_path / "out" / "batch-0.jsonl.gz")[:2]
    assert [line[name] for name in ("flags", "top_tokens", "neighbours", "logits", "nearest")] == [None] * 5
    assert line["draws"] == []
    assert other["interval_samples"] is other["draws"] is None


def test_every_line_follows_the_schema(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    assert errors_of(schema(), lines, tmp_path) == []


def test_a_line_without_a_field_or_with_another_one_does_not_follow_it(
    lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    without = {name: value for name, value in lines[0].items() if name != "draws"}
    assert len(errors_of(schema(), [without, {**lines[0], "more": 1}], tmp_path)) == 2


def test_hostile_text_of_a_transcoder_survives(hostile: ExportSource, tmp_path: Path) -> None:
    write(hostile, "jsonl", tmp_path / "out")
    lines = json_lines(tmp_path / "out" / "batch-0.jsonl.gz")
    stored = {
        index: (document, list(tokens))
        for index, document, tokens in hostile.connection.execute(
            sa.select(samples.c.sample_index, samples.c.document_id, samples.c.tokens)
        )
    }
    found = [one for line in lines for one in line["examples"]]
    assert {one["sample_index"] for one in found} == set(stored)
    assert all((one["document_id"], one["tokens"]) == stored[one["sample_index"]] for one in found)
    shown = "".join(token for _, tokens in stored.values() for token in tokens)
    assert all(part in shown for part in ('quotes "', "\\x00", "\\x1b[2J", "\\xae", "<b>&amp;</b>"))
    assert all(tokens[0] == "" for _, tokens in stored.values())
    assert errors_of(schema(), lines, tmp_path) == []
