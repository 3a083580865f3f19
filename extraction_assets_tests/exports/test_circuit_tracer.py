"""circuit-tracer's features: its own class reads a record, and a range of bytes is a record."""

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.database.queries.examples import draws_of, examples_of, find_feature
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.formats import circuit_tracer
from extraction_assets.exports.source import ExportSource
from extraction_assets.exports.write_export import check
from extraction_assets_tests.exports.readers import read_by
from extraction_assets_tests.exports.written import source_of, write

READ = """
    import json, sys
    from circuit_tracer.frontend.feature_models import Model
    records = json.load(open(sys.argv[1], encoding="utf-8"))
    print(json.dumps([Model.model_validate(record, strict=True).model_dump() for record in records]))
"""


def by_ranges(folder: Path, layer: int) -> list[dict[str, Any] | None]:
    """The record of every feature, as the page reads it: one byte more than it has, and of these as many as its length
    says; None of a feature without a record."""
    index = json.loads(gzip.decompress((folder / "features" / "index.json.gz").read_bytes()))[str(layer)]
    data, offsets = (folder / "features" / index["filename"]).read_bytes(), index["offsets"]
    found: list[dict[str, Any] | None] = []
    for start, stop in itertools.pairwise(offsets):
        bytes_of_range = data[start : stop + 1]
        length = int.from_bytes(bytes_of_range[:4], "little")
        assert stop == start or length == stop - start - 4
        found.append(json.loads(gzip.decompress(bytes_of_range[4 : 4 + length])) if stop > start else None)
    assert offsets[-1] == len(data)
    return found


def test_its_class_reads_every_record(hostile: ExportSource, tmp_path: Path) -> None:
    records = by_ranges(write(hostile, "circuit-tracer", tmp_path / "out").folder, layer=1)
    (tmp_path / "records.json").write_text(json.dumps(records), "utf-8")
    assert read_by(READ, tmp_path / "records.json", package="circuit_tracer") == records


def test_records_are_the_figures_of_the_results(hostile: ExportSource, tmp_path: Path) -> None:
    records = by_ranges(write(hostile, "circuit-tracer", tmp_path / "out").folder, layer=1)
    assert len(records) == hostile.extraction.latent_dim
    for index, record in enumerate(records):
        assert record is not None
        groups = {group["quantile_name"]: group["examples"] for group in record["examples_quantiles"]}
        stored = examples_of(hostile.connection, hostile.extraction.id, index, limit=100)
        assert [one["tokens"] for one in groups.get("Top", [])] == [one.tokens for one in stored]
        strongest = [one["tokens_acts_list"][one["train_token_ind"]] for one in groups.get("Top", [])]
        assert strongest == pytest.approx([one.max_activation for one in stored], rel=1e-7)
        drawn = draws_of(hostile.connection, hostile.extraction.id, index)
        assert sum(map(len, groups.values())) == len(stored) + len(drawn)


def test_histograms_are_counted_in_equal_widths_from_stored_features(hostile: ExportSource, tmp_path: Path) -> None:
    records = by_ranges(write(hostile, "circuit-tracer", tmp_path / "out").folder, layer=1)
    assert hostile.stored_features is not None
    rows = [hostile.stored_features.read(chunk) for chunk in hostile.stored_features.settings.chunks]
    counted = [hostile.stored_features.samples(one).counted for one in hostile.stored_features.settings.chunks]
    for index, record in enumerate(records):
        assert record is not None
        row = find_feature(hostile.connection, hostile.extraction.id, index)
        assert sum(record["histogram"]) == row.token_count
        expected = [0] * 40
        for features, counts in zip(rows, counted, strict=True):
            for token, does_count in enumerate(counts.flatten().tolist()):
                for at in range(int(features.row_pointers[token]), int(features.row_pointers[token + 1])):
                    if does_count and int(features.feature_ids[at]) == index:
                        value = float(features.values[at])
                        expected[min(int(value / row.max_activation * 40), 39)] += 1
        assert record["histogram"] == expected


def test_without_stored_features_there_is_no_histogram(small: sa.Connection, tmp_path: Path) -> None:
    records = by_ranges(write(source_of(small), "circuit-tracer", tmp_path / "out").folder, layer=1)
    assert [record["histogram"] for record in records if record] == [[]] * 6


def test_a_record_says_what_is_repeated(small: sa.Connection, tmp_path: Path) -> None:
    first = by_ranges(write(source_of(small), "circuit-tracer", tmp_path / "out").folder, layer=1)[0]
    assert first is not None
    repeated = {
        group["quantile_name"]: [one["is_repeated_datapoint"] for one in group["examples"]]
        for group in first["examples_quantiles"]
    }
    assert repeated == {
        "Top": [False] * 4,
        "8 to 8, 50.00% of the samples": [True, True],
        "0.5 to 0.75, 25.00% of the samples": [True],
        "Random": [True],
    }
    assert (first["act_min"], first["act_max"], first["activation_frequency"]) == (0.0, 8.0, 0.008)
    assert (first["transcoder_id"], first["top_logits"]) == ("small/one", [" dog"])


def test_features_that_are_not_chosen_have_no_bytes(small: sa.Connection, tmp_path: Path) -> None:
    folder = write(source_of(small, features=[1, 4]), "circuit-tracer", tmp_path / "out").folder
    assert [index for index, record in enumerate(by_ranges(folder, layer=1)) if record] == [1, 4]


def test_a_file_a_feature_is_named_by_cantors_number(small: sa.Connection, tmp_path: Path) -> None:
    options = {"form": "files", "layer": "2"}
    folder = write(source_of(small), "circuit-tracer", tmp_path / "out", **options).folder
    numbers = [3, 7, 12, 18, 25, 33]  # of (2, 0) to (2, 5): (2 + n)(3 + n) / 2 + n
    assert {path.name for path in folder.glob("*.json")} == {f"{one}.json" for one in numbers}
    for index, number in enumerate(numbers):
        assert json.loads((folder / f"{number}.json").read_text("utf-8"))["index"] == index


def test_an_export_killed_between_parts_goes_on_to_the_same_files(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(source_of(small), "circuit-tracer", tmp_path / "whole").folder
    monkeypatch.setattr(circuit_tracer, "FEATURES_IN_PART", 2)
    group = circuit_tracer.example_groups

    def dying(feature: Any) -> Any:
        if feature.neuron_index == 3:
            raise KeyboardInterrupt
        return group(feature)

    folder = tmp_path / "killed"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(circuit_tracer, "example_groups", dying)
        write(source_of(small), "circuit-tracer", folder)
    assert [path.name for path in folder.rglob("*.bin")] == ["0.bin"]
    write(source_of(small), "circuit-tracer", folder)
    for name in ("layer_1.bin", "index.json.gz"):
        assert (folder / "features" / name).read_bytes() == (whole / "features" / name).read_bytes()
    assert sorted(path.name for path in (folder / "features").iterdir()) == ["index.json.gz", "layer_1", "layer_1.bin"]
    assert [path.name for path in (folder / "features" / "layer_1").iterdir()] == ["export.json"]


def test_layers_share_a_folder_and_an_index(small: sa.Connection, tmp_path: Path) -> None:
    for sae, layer in (("two", "12"), ("one", "2")):
        folder = write(source_of(small, sae=sae), "circuit-tracer", tmp_path / "out", layer=layer).folder
    assert [record and record["transcoder_id"] for record in by_ranges(folder, layer=12)] == ["small/two"] * 6
    assert [record and record["transcoder_id"] for record in by_ranges(folder, layer=2)] == ["small/one"] * 6
    index = json.loads(gzip.decompress((folder / "features" / "index.json.gz").read_bytes()))
    assert list(index) == ["2", "12"]


def test_two_saes_of_one_layer_are_refused_before_anything_is_written(small: sa.Connection, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="small/one and small/two would both be features/layer_1"):
        check([source_of(small), source_of(small, sae="two")], "circuit-tracer", {})
    write(source_of(small), "circuit-tracer", tmp_path / "out")
    with pytest.raises(ExportError, match=r'features/layer_1 holds another export .*sae: "one", not "two"'):
        write(source_of(small, sae="two"), "circuit-tracer", tmp_path / "out")


def test_another_form_and_a_hook_without_a_layer_are_refused(small: sa.Connection, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="form is 'csv', and may be binary or files"):
        write(source_of(small), "circuit-tracer", tmp_path / "out", form="csv")
