"""Requests of Neuronpedia's upload: within the server's limits, and as its own client makes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.formats import neuronpedia_upload
from extraction_assets.exports.formats.neuronpedia_upload import EMPTY, schema
from extraction_assets.exports.source import ExportSource
from extraction_assets_tests.exports.readers import read_by
from extraction_assets_tests.exports.schemas import errors_of
from extraction_assets_tests.exports.written import source_of, write

_SENT_BY_THE_CLIENT = """
    import json, sys
    from neuronpedia.np_activation import Activation
    from neuronpedia.np_explanation import Explanation
    from neuronpedia.np_feature import Feature, Logit
    from neuronpedia.requests.feature_request import FeatureRequest
    sent = []
    FeatureRequest.send_request = lambda self, **request: sent.append(request["json"])
    request = json.load(open(sys.argv[1], encoding="utf-8"))
    place = {"modelId": request["modelId"], "source": request["source"]}
    features = []
    for one in request["features"]:
        of = {**place, "index": one["index"]}
        logits = {key: one[name] and [Logit(**each) for each in one[name]]
                  for key, name in (("top_logits", "topLogits"), ("bottom_logits", "bottomLogits"))}
        activations = [Activation(**of, **each) for each in one["activations"]]
        explanations = [Explanation(**of, text=each["text"]) for each in one["explanations"]]
        more = {"activations": activations, "explanations": explanations, **logits}
        features.append(Feature(**of, density=one["density"], **more))
    FeatureRequest(api_key="none").upload_batch(place["modelId"], place["source"], features)
    print(json.dumps(sent))
"""


def requests_of(folder: Path) -> list[dict[str, Any]]:
    """The requests of an export, in their order."""
    files = sorted(folder.glob("batch-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
    return [json.loads(path.read_text("utf-8")) for path in files]


def test_hostile_text_is_within_the_limits_of_the_server(hostile: ExportSource, tmp_path: Path) -> None:
    requests = requests_of(write(hostile, "neuronpedia-upload", tmp_path / "out").folder)
    assert errors_of(schema(), requests, tmp_path) == []
    activations = [one for request in requests for feature in request["features"] for one in feature["activations"]]
    assert all(len(one["tokens"]) == len(one["values"]) for one in activations)
    assert any(one["tokens"][0] == EMPTY for one in activations)


def test_no_value_is_above_the_interval_of_its_example(hostile: ExportSource, tmp_path: Path) -> None:
    requests = requests_of(write(hostile, "neuronpedia-upload", tmp_path / "out").folder)
    activations = [one for request in requests for feature in request["features"] for one in feature["activations"]]
    assert [one for one in activations if not one["quantileMin"] <= max(one["values"]) <= one["quantileMax"]] == []


def test_an_empty_token_and_an_empty_request_are_not_within_them(tmp_path: Path, hostile: ExportSource) -> None:
    (request, *_) = requests_of(write(hostile, "neuronpedia-upload", tmp_path / "out").folder)
    nothing = {**request, "features": []}
    request["features"][0]["activations"][0]["tokens"][0] = ""
    assert len(errors_of(schema(), [request, nothing, {**nothing, "modelId": "GPT"}], tmp_path)) == 4


def test_the_client_of_neuronpedia_sends_the_same_request(small: sa.Connection, tmp_path: Path) -> None:
    folder = write(source_of(small), "neuronpedia-upload", tmp_path / "out").folder
    (sent,) = read_by(_SENT_BY_THE_CLIENT, folder / "batch-0.json", package="neuronpedia")
    assert [sent] == requests_of(folder)


def test_features_without_an_example_are_left_out(small: sa.Connection, tmp_path: Path) -> None:
    (request,) = requests_of(write(source_of(small), "neuronpedia-upload", tmp_path / "out").folder)
    assert [feature["index"] for feature in request["features"]] == [0, 1, 2, 5]


def test_a_file_has_as_many_features_as_asked_for_and_none_is_without(small: sa.Connection, tmp_path: Path) -> None:
    folder = write(source_of(small), "neuronpedia-upload", tmp_path / "out", features_in_file="1").folder
    indices = {path.name: json.loads(path.read_text())["features"][0]["index"] for path in folder.glob("batch-*")}
    assert indices == {f"batch-{index}.json": index for index in (0, 1, 2, 5)}


def test_each_sample_stands_once_with_its_interval(small: sa.Connection, tmp_path: Path) -> None:
    (request,) = requests_of(write(source_of(small), "neuronpedia-upload", tmp_path / "out").folder)
    first = request["features"][0]
    found = [(one["quantileMin"], one["quantileMax"], one["quantileFraction"]) for one in first["activations"]]
    assert found == [(8.0, 8.0, 0.5), (8.0, 8.0, 0.5), (4.0, 6.0, 0.0), (0.5, 0.75, 0.25)]
    assert first["density"] == 0.008
    assert first["topLogits"] == [{"token": " dog", "value": 1.25}]
    assert first["explanations"][0]["text"] == "cats"


def test_a_long_sample_is_cut_around_its_strongest_token(
    small: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuronpedia_upload, "MOST_TOKENS", 4)
    (request,) = requests_of(write(source_of(small), "neuronpedia-upload", tmp_path / "out").folder)
    first, second = request["features"][0]["activations"][:2]
    assert (first["tokens"], first["values"]) == (["<|endoftext|>", "The", " cat", " sat"], [0, 0, 8.0, 0])
    assert (second["tokens"][-1], second["values"]) == (" cat", [0, 0, 0, 8.0])


@pytest.mark.parametrize("value", ["0", "many", "129"])
def test_a_number_of_features_that_the_server_does_not_take_is_refused(
    small: sa.Connection, tmp_path: Path, value: str
) -> None:
    with pytest.raises(ExportError, match="features_in_file is"):
        write(source_of(small), "neuronpedia-upload", tmp_path / "out", features_in_file=value)
