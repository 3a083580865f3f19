"""``labels``: out of the database and into it, as JSON lines; what deletes and reports says that they stay."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.labels import label_transaction, save_label
from extraction_assets_tests.command import declare, invoke, succeed
from extraction_assets_tests.database.synthetic import make_results
from extraction_assets_tests.project import Project

Labels = Callable[..., Result]
FIRST = '{"neuron_index": 3, "sae": "sae", "label": "pop() calls \\u202e é", "mark": "interesting"}\n'


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Labels:
    """``labels`` on a database with results ``made-up/sae`` of twelve features."""
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", url := f"sqlite:///{tmp_path}/results.sqlite")
    engine = open_database(url)
    with write_transaction(engine) as connection:
        make_results("f", 1.5, num_features=12, top_k=2).load(connection)
    engine.dispose()
    return partial(invoke, declare(monkeypatch), "labels")


def write(folder: Path, text: str) -> str:
    path = folder / "labels.jsonl"
    path.write_text(text, "utf-8")
    return str(path)


def test_what_is_exported_and_imported_again_is_the_same(labels: Labels, tmp_path: Path) -> None:
    imported = labels("import", "made-up", write(tmp_path, FIRST))
    assert imported.output == "1 label: 1 added, 0 replaced older ones, 0 older than those here, 0 unchanged\n"
    exported = labels("export", "made-up").output
    again = labels("import", "made-up", write(tmp_path, exported))
    assert again.output == "1 label: 0 added, 0 replaced older ones, 0 older than those here, 1 unchanged\n"
    assert labels("export", "made-up").output == exported


def test_an_export_is_safe_in_a_terminal(labels: Labels, tmp_path: Path) -> None:
    labels("import", "made-up", write(tmp_path, FIRST))
    (line,) = labels("export", "made-up").output.splitlines()
    assert line.isprintable()
    assert '"label": "pop() calls \\u202e é"' in line


def test_labels_are_read_from_standard_input(labels: Labels) -> None:
    assert "1 added" in labels("import", "made-up", "-", typed=FIRST).output


def test_every_bad_line_is_printed_and_nothing_is_imported(labels: Labels, tmp_path: Path) -> None:
    result = labels("import", "made-up", write(tmp_path, f"{FIRST}{{\n{FIRST.replace('3', '12')}[]\n"))
    assert result.exit_code == 1
    first, second, third, last = result.output.splitlines()
    assert first.startswith("line 2: it is not JSON")
    assert second.startswith("line 3: no feature 12 in made-up/sae")
    assert third == "line 4: it is not a JSON object"
    assert last.endswith("labels.jsonl: 3 lines cannot be imported, so nothing was")
    assert labels("export", "made-up").output == "no feature of made-up is labelled\n"


def test_a_feature_that_there_is_not_is_named_by_its_line(labels: Labels, tmp_path: Path) -> None:
    result = labels("import", "made-up", write(tmp_path, FIRST.replace("3", "12")))
    assert "line 1: no feature 12 in made-up/sae: features are numbered from 0 to 11" in result.output


def explanations(folder: Path, index: int = 3) -> str:
    (folder / f"hook_latent{index}.txt").write_text('"pop() calls"', "utf-8")
    return str(folder)


def test_explanations_are_read_as_labels_of_the_only_sae(labels: Labels, tmp_path: Path) -> None:
    imported = labels("import", "made-up", explanations(tmp_path), "--format", "delphi")
    assert imported.output == "1 label: 1 added, 0 in place of others, 0 of features that have a label, 0 unchanged\n"
    assert '"neuron_index": 3, "label": "pop() calls"' in labels("export", "made-up").output


def test_an_explanation_of_a_feature_that_there_is_not_is_named_by_its_file(labels: Labels, tmp_path: Path) -> None:
    result = labels("import", "made-up", explanations(tmp_path, 12), "--format", "delphi")
    assert "hook_latent12.txt, line 1: no feature 12 in made-up/sae" in result.output
    assert result.output.endswith("1 line cannot be imported, so nothing was\n")


def test_every_file_of_explanations_that_cannot_be_imported_is_named(labels: Labels, tmp_path: Path) -> None:
    (tmp_path / "hook_latent4.txt").write_bytes(b"\xff")
    result = labels("import", "made-up", explanations(tmp_path, 12), "--format", "delphi")
    assert "hook_latent12.txt, line 1: no feature 12 in made-up/sae" in result.output
    assert "hook_latent4.txt, line 1: byte 1 is not UTF-8" in result.output
    assert result.output.endswith("2 lines cannot be imported, so nothing was\n")


def test_options_of_explanations_want_their_format(labels: Labels, tmp_path: Path) -> None:
    result = labels("import", "made-up", write(tmp_path, FIRST), "--replace")
    assert "--sae, --source and --replace are for explanations: name their --format" in result.output


@pytest.mark.parametrize("command", [("export", "none"), ("import", "none", "-")])
def test_an_extraction_that_there_is_not_is_one_sentence(labels: Labels, command: tuple[str, ...]) -> None:
    result = labels(*command, typed=FIRST)
    assert result.exit_code == 1
    assert result.output == "Error: no extraction 'none'; there are: made-up\n"


def test_labels_of_an_sae_without_results_are_counted(labels: Labels) -> None:
    result = labels("import", "made-up", "-", typed=FIRST.replace('"sae": "sae"', '"sae": "later"'))
    assert "1 of them are of SAEs of which nothing is merged yet (later)" in result.output


def test_delete_says_that_labels_stay_and_leaves_them(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings)
    engine = open_database(project.url)
    with label_transaction(engine) as connection:
        save_label(connection, "tiny", "relu", 3, label="kept")
    engine.dispose()
    assert "relu/labels" in succeed(module, "status", "tiny")
    assert "note: labels of 1 feature stay" in succeed(module, "delete", "tiny", "--yes")
    assert '"label": "kept"' in succeed(module, "labels", "export", "tiny")
