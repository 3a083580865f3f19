"""SAEDashboard: its own batch class reads the files whole, and the figures are the database's."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.database.queries.examples import examples_of
from extraction_assets.database.tables import features
from extraction_assets.exports.formats import sae_dashboard
from extraction_assets.exports.source import ExportSource
from extraction_assets_tests.browser.small_results import DRAWS, EXAMPLES, SAMPLES
from extraction_assets_tests.exports.readers import read_by
from extraction_assets_tests.exports.written import source_of, write

READ = """
    import importlib.util, json, sys
    # The package's own __init__ loads TransformerLens; the module of the classes needs numpy alone.
    folder = importlib.util.find_spec("sae_dashboard").submodule_search_locations[0]
    found = importlib.util.spec_from_file_location("dashboard", f"{folder}/neuronpedia/neuronpedia_dashboard.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps(module.NeuronpediaDashboardBatch(**json.load(file)).to_dict()))
"""


def batch(folder: Path, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"batch-{number}.json").read_text("utf-8"))
    return found


@pytest.fixture
def folder(small: sa.Connection, tmp_path: Path) -> Path:
    """The SAE ``one`` of the small results, whose hook and model name no layer."""
    return write(source_of(small), "sae-dashboard", tmp_path / "out", layer="7", source_set="set").folder


def test_the_class_of_the_runner_reads_a_file_whole(folder: Path) -> None:
    assert read_by(READ, folder / "batch-0.json", package="sae_dashboard") == batch(folder)


def test_a_file_says_of_which_sae_it_is(folder: Path) -> None:
    found = batch(folder)
    assert (found["layer"], found["sae_set"], found["sae_id_suffix"]) == (7, "set", None)


def test_statistics_equal_the_rows_of_the_database(small: sa.Connection, folder: Path) -> None:
    rows = small.execute(sa.select(features).where(features.c.extraction_id == 1).order_by(features.c.neuron_index))
    for found, row in zip(batch(folder)["features"], rows, strict=True):
        assert (found["feature_index"], found["frac_nonzero"]) == (row.neuron_index, row.token_frequency)
        assert sum(found["freq_hist_data_bar_heights"]) == sum(row.histogram)


def test_examples_and_draws_have_every_token_and_its_value(folder: Path) -> None:
    for found in batch(folder)["features"]:
        index = found["feature_index"]
        top = [one for one in found["activations"] if one["bin_min"] == -1]
        others = [one for one in found["activations"] if one["bin_min"] != -1]
        drawn = sorted((one for one in DRAWS.get(index, []) if one[0] >= 0), key=lambda one: -one[0])
        expected = [*EXAMPLES.get(index, []), *(one[1:] for one in drawn)]
        for one, (sample_index, _, _, positions, activations) in zip([*top, *others], expected, strict=True):
            values = dict(zip(positions, activations, strict=True))
            tokens = SAMPLES[sample_index][2]
            assert one["tokens"] == tokens
            assert one["values"] == [values.get(position, 0) for position in range(len(tokens))]
            assert one["qualifying_token_index"] == positions[0]


def test_the_strongest_examples_carry_the_maximum_and_others_their_interval(folder: Path) -> None:
    for found in batch(folder)["features"]:
        for one in found["activations"]:
            if one["bin_min"] == -1:
                assert one["bin_contains"] == -1
                assert one["bin_max"] >= max(one["values"])
            else:
                assert one["bin_min"] <= max(one["values"]) <= one["bin_max"]


def test_logits_are_those_of_the_database(folder: Path) -> None:
    found = batch(folder)["features"][0]
    assert (found["pos_str"], found["pos_values"]) == ([" dog"], [1.25])
    assert len(found["logits_hist_data_bar_values"]) == len(found["logits_hist_data_bar_heights"]) > 0


def test_hostile_texts_of_a_transcoder_survive(hostile: ExportSource, tmp_path: Path) -> None:
    folder = write(hostile, "sae-dashboard", tmp_path / "out").folder
    assert read_by(READ, folder / "batch-0.json", package="sae_dashboard") == batch(folder)
    for found in batch(folder)["features"]:
        stored = examples_of(hostile.connection, hostile.extraction.id, found["feature_index"], 10**6)
        assert [one["tokens"] for one in found["activations"] if one["bin_min"] == -1] == [one.tokens for one in stored]


def test_an_export_that_goes_on_writes_what_is_missing(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_dashboard, "FEATURES_IN_FILE", 2)
    folder = write(source_of(small), "sae-dashboard", tmp_path / "out", layer="7").folder
    before = (folder / "batch-1.json").read_bytes()
    (folder / "batch-1.json").unlink()
    assert write(source_of(small), "sae-dashboard", folder, layer="7").written == 1
    assert (folder / "batch-1.json").read_bytes() == before
    numbers = [[one["feature_index"] for one in batch(folder, number)["features"]] for number in range(3)]
    assert numbers == [[0, 1], [2, 3], [4, 5]]
