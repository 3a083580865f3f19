"""Neuronpedia's public data sets: the layout, the columns, and a database that they are imported into."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import write_transaction
from extraction_assets.database.explanations import neuronpedia as explanations
from extraction_assets.database.explanations.explanation import Explanation
from extraction_assets.database.queries.examples import draws_of, examples_of, find_feature
from extraction_assets.engine.saes.located_checkpoint import read_sae
from extraction_assets.engine.saes.resolved import resolve_extraction
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.source import ExportSource
from extraction_assets_tests.browser.small_results import LATENT_DIM
from extraction_assets_tests.exports.neuronpedia_server import import_folder, make_tables
from extraction_assets_tests.exports.written import json_lines, source_of, write

TABLES = ("features", "activations", "explanations")


def of_folder(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of each table."""
    return {name: json_lines(folder / name / "batch-0.jsonl.gz") for name in TABLES if (folder / name).is_dir()}


@pytest.fixture
def lines(small: sa.Connection, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """What is written of the SAE ``one`` of the small results."""
    write(source_of(small), "neuronpedia", tmp_path / "out")
    return of_folder(tmp_path / "out" / "gpt" / "1-small-one")


@pytest.fixture
def server(postgres_url: str) -> Iterator[sa.Connection]:
    """An empty database of Neuronpedia."""
    engine = sa.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg2://"))
    with write_transaction(engine) as connection:
        make_tables(connection)
        yield connection
    engine.dispose()


def test_a_source_lies_in_a_folder_of_its_model_with_four_files_beside_the_tables(
    small: sa.Connection, tmp_path: Path
) -> None:
    options = {"model_id": "gpt2-small", "source_set": "res-jb", "layer": "7", "release": "gpt2sm-jb"}
    folder = write(source_of(small), "neuronpedia", tmp_path / "out", **options).folder / "gpt2-small" / "7-res-jb"
    release, model, source_set, source = (
        json_lines(folder / f"{name}.jsonl")[0] for name in ("release", "model", "sourceset", "source")
    )
    assert (release["name"], model["id"], model["layers"]) == ("gpt2sm-jb", "gpt2-small", 8)
    assert (source_set["name"], source_set["releaseName"]) == ("res-jb", "gpt2sm-jb")
    assert (source["id"], source["setName"], source["num_prompts"]) == ("7-res-jb", "res-jb", 100)
    assert json_lines(folder / "features" / "batch-0.jsonl.gz")[0]["layer"] == "7-res-jb"


def test_every_line_of_a_table_has_the_same_columns(lines: dict[str, list[dict[str, Any]]]) -> None:
    assert [len({tuple(line) for line in lines[name]}) for name in TABLES] == [1, 1, 1]


def test_a_feature_has_its_statistics_octaves_and_logits(lines: dict[str, list[dict[str, Any]]]) -> None:
    feature = lines["features"][0]
    assert (feature["index"], feature["maxActApprox"], feature["frac_nonzero"]) == ("0", 8.0, 0.008)
    assert feature["freq_hist_data_bar_heights"] == [6, 0, 0, 2]
    assert feature["freq_hist_data_bar_values"] == [1.5, 3.0, 6.0, 12.0]
    assert (feature["pos_str"], feature["neg_values"]) == ([" dog"], [-0.5])
    assert feature["logits_hist_data_bar_heights"] == [1, 4, 1]
    assert feature["logits_hist_data_bar_values"] == pytest.approx([-0.5 + 1.75 / 6, 0.375, 1.25 - 1.75 / 6])
    assert (feature["topkCosSimIndices"], feature["topkCosSimValues"]) == ([1], [0.5])


def test_a_dead_feature_is_there_with_nothing(lines: dict[str, list[dict[str, Any]]]) -> None:
    assert len(lines["features"]) == LATENT_DIM
    dead = lines["features"][3]
    assert (dead["maxActApprox"], dead["frac_nonzero"], dead["freq_hist_data_bar_heights"]) == (0, 0.0, [])


def test_the_top_group_has_no_bin_and_intervals_have_theirs(lines: dict[str, list[dict[str, Any]]]) -> None:
    bins = [(one["dataIndex"], one["binMin"], one["binMax"], one["binContains"]) for one in lines["activations"]]
    assert bins[:4] == [(str(sample), -1, 8.0, -1) for sample in (7, 8, 9, 10)]
    assert bins[4:7] == [("7", 8.0, 8.0, 0.5), ("8", 8.0, 8.0, 0.5), ("10", 0.5, 0.75, 0.25)]


def test_the_bin_of_the_strongest_ends_where_that_of_the_highest_interval_does(
    hostile: ExportSource, tmp_path: Path
) -> None:
    (folder,) = (write(hostile, "neuronpedia", tmp_path / "out").folder).glob("*/*/activations")
    found = [one for path in folder.iterdir() for one in json_lines(path)]
    ends = {one["index"]: one["binMax"] for one in found if one["binMin"] == -1}
    assert len(ends) > 10
    assert {one["index"]: one["binMax"] for one in found if one["maxValue"] == ends[one["index"]]} == ends


def test_an_example_has_a_value_for_every_token(lines: dict[str, list[dict[str, Any]]]) -> None:
    first = lines["activations"][0]
    assert first["tokens"][first["maxValueTokenIndex"]] == " cat"
    assert first["values"] == [0, 0, 8.0, 0, 0, 0, 0, 0, 0, 2.0, 0]
    assert (first["maxValue"], first["minValue"]) == (8.0, 0)
    assert all(len(one["tokens"]) == len(one["values"]) for one in lines["activations"])


def test_a_label_is_an_explanation(lines: dict[str, list[dict[str, Any]]]) -> None:
    (explanation,) = lines["explanations"]
    assert (explanation["index"], explanation["description"], explanation["notes"]) == ("0", "cats", "a note")


def test_an_explanation_is_imported_as_the_label_that_it_was(small: sa.Connection, tmp_path: Path) -> None:
    folder = write(source_of(small), "neuronpedia", tmp_path / "out").folder / "gpt" / "1-small-one"
    (found,) = explanations.read(folder, "1-small-one")
    assert isinstance(found, Explanation)
    assert (found.neuron_index, found.text) == (0, "cats")


def test_no_file_is_empty(small: sa.Connection, tmp_path: Path) -> None:
    write(source_of(small, features=[3]), "neuronpedia", tmp_path / "out")
    assert list(of_folder(tmp_path / "out" / "gpt" / "1-small-one")) == ["features"]


def test_ids_name_one_example_each_and_stay_the_same(
    small: sa.Connection, lines: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    write(source_of(small), "neuronpedia", tmp_path / "again")
    again = of_folder(tmp_path / "again" / "gpt" / "1-small-one")
    ids = [one["id"] for one in lines["activations"]]
    assert ids == [one["id"] for one in again["activations"]]
    assert len(set(ids)) == len(ids)
    assert {len(one) for one in ids} == {25}


def test_a_database_takes_it_twice_and_holds_it_once(
    hostile: ExportSource, server: sa.Connection, tmp_path: Path
) -> None:
    write(hostile, "neuronpedia", tmp_path / "out")
    folder = tmp_path / "out" / "model" / "1-hostile-mlp"
    counts = []
    for _ in range(2):
        import_folder(server, folder)
        counts.append([server.scalar(sa.text(f'SELECT count(*) FROM "{table}"')) for table in ("Neuron", "Activation")])
    assert counts[0] == counts[1]
    assert counts[0][0] == hostile.extraction.latent_dim


def test_what_the_database_then_holds_are_the_figures_of_the_results(
    hostile: ExportSource, server: sa.Connection, tmp_path: Path
) -> None:
    write(hostile, "neuronpedia", tmp_path / "out")
    import_folder(server, tmp_path / "out" / "model" / "1-hostile-mlp")
    query = 'SELECT index, "maxActApprox", frac_nonzero FROM "Neuron"'
    neurons = {int(index): (maximum, share) for index, maximum, share in server.execute(sa.text(query))}
    results, extraction_id = hostile.connection, hostile.extraction.id
    for index in range(hostile.extraction.latent_dim):
        row = find_feature(results, extraction_id, index)
        assert neurons[index] == (row.max_activation or 0, row.token_frequency)
        query = 'SELECT "dataIndex", "binMin", tokens, values FROM "Activation" WHERE index = :index'
        found = {
            (sample, low == -1): rest for sample, low, *rest in server.execute(sa.text(query), {"index": str(index)})
        }
        drawn = [one for one in draws_of(results, extraction_id, index) if one.interval >= 0]
        stored = {(str(one.sample_index), True): one for one in examples_of(results, extraction_id, index, limit=100)}
        stored |= {(str(one.sample_index), False): one for one in drawn}  # type: ignore[misc]
        assert found.keys() == stored.keys()
        for key, (tokens, values) in found.items():
            assert tokens == stored[key].tokens
            firings = dict(zip(stored[key].positions, stored[key].activations, strict=True))
            expected = [firings.get(place, 0.0) for place in range(len(tokens))]
            assert np.array_equal(np.float32(values), np.float32(expected))


def test_decoder_rows_are_those_of_the_checkpoint(tiny: ExportSource, tmp_path: Path) -> None:
    write(tiny, "neuronpedia", tmp_path / "out")
    features = of_folder(tmp_path / "out" / "model" / "0-tiny-relu")["features"]
    assert all(one["hasVector"] for one in features)
    assert tiny.declared is not None
    weights = read_sae(resolve_extraction(tiny.declared.settings).saes["relu"]).w_dec
    assert weights is not None
    assert np.array_equal(np.float32([one["vector"] for one in features]), weights.numpy())


def test_decoder_rows_of_another_checkpoint_than_the_merged_one_are_left_out(
    tiny: ExportSource, tmp_path: Path
) -> None:
    assert tiny.declared is not None
    settings = tiny.declared.settings
    other = settings.saes["relu"].model_copy(update={"path": settings.saes["topk"].path})
    changed = settings.model_copy(update={"saes": {**settings.saes, "relu": other}})
    source = ExportSource(tiny.connection, tiny.extraction, declared=tiny.declared._replace(settings=changed))
    write(source, "neuronpedia", tmp_path / "out")
    features = of_folder(tmp_path / "out" / "model" / "0-tiny-relu")["features"]
    assert not any(one["hasVector"] or one["vector"] for one in features)
    assert "merged from other settings or checkpoints" in source.decoder.missing


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("model_id", "GPT 2", "is not a name that Neuronpedia takes"), ("layer", "first", "is not the number of a layer")],
)
def test_names_that_neuronpedia_does_not_take_are_refused(
    small: sa.Connection, tmp_path: Path, option: str, value: str, said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        write(source_of(small), "neuronpedia", tmp_path / "out", **{option: value})
    assert not list((tmp_path / "out").glob("*/*"))


def test_vectors_are_wanted_or_not(small: sa.Connection, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="vectors is 'banana', and may be yes or no"):
        write(source_of(small), "neuronpedia", tmp_path / "out", vectors="banana")
