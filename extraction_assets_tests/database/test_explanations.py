"""Explanations of other programs: which are read, which become labels, what of the features' labels stays."""

import datetime as dt
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.database.explanations import FORMATS, delphi, explanations_format, neuronpedia
from extraction_assets.database.explanations.explanation import Explanation, ExplanationsError, as_labels
from extraction_assets.database.label_lines import NumberedFault
from extraction_assets.database.labels import refusal
from extraction_assets.database.queries.labels import LONGEST_LABEL

DAY = dt.datetime(2025, 1, 2, tzinfo=dt.UTC)
LINE = {
    "id": "c1",
    "modelId": "gemma-2-2b",
    "layer": "12-gemmascope-res-16k",
    "index": "7",
    "description": "pop() calls",
    "typeName": "oai_token-act-pair",
    "explanationModelName": "gpt-4o-mini",
    "createdAt": "2025-01-02 03:04:05.678",
    "embedding": [0.5] * 256,
}


def write(folder: Path, *lines: dict[str, Any], name: str = "batch-0.jsonl") -> Path:
    text = "\n".join(map(json.dumps, lines)).encode()
    path = folder / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def read(path: Path, source: str | None = None) -> list[Explanation]:
    return [one for one in neuronpedia.read(path, source) if isinstance(one, Explanation)]


def explained(text: str = "a", index: int = 7, moment: dt.datetime = DAY, line: int = 1) -> Explanation:
    return Explanation(index, text, "x", moment, "f", line)


def test_a_line_of_neuronpedia_is_read(tmp_path: Path) -> None:
    moment = dt.datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC)
    origin = "Neuronpedia, oai_token-act-pair, gpt-4o-mini"
    assert read(write(tmp_path, LINE)) == [Explanation(7, "pop() calls", origin, moment, "batch-0.jsonl", 1)]


def test_a_folder_of_compressed_files_is_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "explanations").mkdir()
    for number in (10, 2, 0):
        write(tmp_path / "explanations", {**LINE, "index": str(number)}, name=f"batch-{number}.jsonl.gz")
    assert [one.neuron_index for one in read(tmp_path)] == [0, 2, 10]


def test_of_several_sources_one_has_to_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, LINE, {**LINE, "layer": "13-res"})
    with pytest.raises(ExplanationsError, match=r"2 sources \(12-gemmascope-res-16k, 13-res\): choose one by --source"):
        read(path)
    assert len(read(path, "13-res")) == 1


def test_a_source_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExplanationsError, match="no feature of source 'x'; there are: 12-gemmascope-res-16k"):
        read(write(tmp_path, LINE), "x")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"index": "-1"}, "batch-0.jsonl, line 2: index is not the number of a feature"),
        ({"index": True}, "batch-0.jsonl, line 2: index is not the number of a feature"),
        ({"description": 3}, "batch-0.jsonl, line 2: description is not a text"),
        ({"layer": None}, "batch-0.jsonl, line 2: layer is not the id of a source"),
        ({"createdAt": "noon"}, "batch-0.jsonl, line 2: createdAt is 'noon', not a time"),
    ],
)
def test_a_line_that_is_no_explanation_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    _, fault = neuronpedia.read(write(tmp_path, LINE, {**LINE, **changes}), None)
    assert isinstance(fault, NumberedFault)
    assert fault.sentence == sentence


def test_a_cut_gzip_file_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, LINE, name="batch-0.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ExplanationsError, match=r"batch-0\.jsonl\.gz is cut or no gzip file"):
        read(path)


def delphi_file(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, "utf-8")
    os.utime(folder / name, (DAY.timestamp(), DAY.timestamp()))
    return folder


@pytest.mark.parametrize("content", ['"pop() \\u00e9"', "pop() é"])
def test_a_file_of_delphi_is_read(tmp_path: Path, content: str) -> None:
    delphi_file(tmp_path, "layers.1_latent12.txt", content)
    found = Explanation(12, "pop() é", "delphi", DAY, "layers.1_latent12.txt", 1)
    assert list(delphi.read(tmp_path, None)) == [found]


def test_what_delphi_could_not_explain_is_left_out(tmp_path: Path) -> None:
    delphi_file(tmp_path, "layers.1_latent12.txt", '"Explanation could not be parsed."')
    assert list(delphi.read(tmp_path, None)) == []


def test_of_several_modules_one_has_to_be_chosen(tmp_path: Path) -> None:
    for name in ("layers.1_latent2.txt", "layers.2_latent3.txt"):
        delphi_file(tmp_path, name, '"a"')
    with pytest.raises(ExplanationsError, match=r"2 modules \(layers\.1, layers\.2\): choose one by --source"):
        list(delphi.read(tmp_path, None))
    (one,) = delphi.read(tmp_path, "layers.2")
    assert isinstance(one, Explanation)
    assert one.neuron_index == 3


def test_a_folder_without_explanations_is_refused(tmp_path: Path) -> None:
    for read_folder in (neuronpedia.read, delphi.read):
        with pytest.raises(ExplanationsError, match="no file"):
            list(read_folder(tmp_path, None))


def test_the_newest_explanation_is_the_label_and_others_stand_in_the_note() -> None:
    (one,) = as_labels([explained("old"), explained("new", moment=DAY + dt.timedelta(1))], "e", "s").labels
    assert (one.label.label, one.label.note) == ("new", "x\nx: old")


def test_a_long_explanation_is_the_note() -> None:
    text = "first line\n" + "x" * LONGEST_LABEL
    (one,) = as_labels([explained(text)], "e", "s").labels
    assert one.label.label == "first line " + "x" * (LONGEST_LABEL - 12) + "…"
    assert one.label.note == f"x\n{text}"


@pytest.mark.parametrize("make", [lambda text: text, lambda text: text * 20_000])
def test_what_the_database_cannot_hold_is_escaped(make: Callable[[str], str]) -> None:
    (one,) = as_labels([explained(make("NUL \0 and \udcff"))], "e", "s").labels
    assert refusal(one.label) is None
    assert one.label.label.startswith("NUL \\x00 and \\udcff")


def test_an_explanation_without_a_text_is_none() -> None:
    assert as_labels([explained(" \n")], "e", "s").labels == []


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_on_the_command_line_is_a_module_that_reads(name: str) -> None:
    assert callable(explanations_format(name).read)
