"""``init``: a new extraction in somebody's project, and what is run from it."""

import re
from pathlib import Path

import pytest

from extraction_assets_tests.cli.new_project import ARGUMENTS, BOTH, FIRST, init, settings_of
from extraction_assets_tests.command import invoke


def test_what_init_writes_is_checked_and_run(workshop: Path, home: Path) -> None:
    file = workshop / "workshop" / "defs" / "new" / "defs.yaml"
    command = "extraction-assets --module workshop.definitions"
    assert init(*ARGUMENTS, *BOTH).splitlines() == [
        f"wrote {file}",
        "corpus  23 samples, from 2 of 3 documents",
        f"next  {command} check new",
        f"      {command} run new",
    ]
    checked = invoke("workshop.definitions", "check", "new", "--device", "cpu")
    assert checked.exit_code == 0, checked.output
    lines = checked.stdout.splitlines()
    assert lines[0].split()[-4:] == ["LlamaModel,", "float32", "on", "cpu"]
    assert [line.split() for line in lines[1:3]] == [
        ["hook", "model.layers.0", "width", "16"],
        ["hook", "model.layers.1", "width", "16"],
    ]
    assert lines[3].split()[:3] == ["SAE", "first_sae", "standard,"]
    (numbers,) = (line for line in lines if line.startswith("second  "))
    assert numbers.split()[1] == "1.000", "variance explained"
    assert numbers.endswith("of one batch of the source")
    assert any(line.startswith("disk   model_activations") for line in lines)
    assert lines[-1] == f"ok  {command} run new"
    assert not home.exists(), "nothing is stored"
    run = invoke("workshop.definitions", "run", "new")
    assert run.exit_code == 0, run.output
    again = invoke("workshop.definitions", "check", "new")
    assert "of the corpus" in again.output
    assert re.search("disk +all chunks +are there", again.output)


def test_paths_are_written_relative_to_the_file_and_hub_ids_stay(workshop: Path) -> None:
    init(*ARGUMENTS, *FIRST, "--sae", "someone/some-sae", "--hook", "layers.1", name="mixed")
    text = (workshop / "workshop" / "defs" / "mixed" / "defs.yaml").read_text()
    assert "path: ../../../../things/model " in text
    declared = settings_of(workshop, "mixed")
    assert declared.corpus.source == "../../../../things/texts"
    assert {name: sae.path for name, sae in declared.saes.items()} == {
        "first_sae": "../../../../things/first-sae",
        "some_sae": "someone/some-sae",
    }
    assert (declared.corpus.max_length, declared.evaluation_samples) == (16, 23)


def test_names_and_hooks_may_be_given_for_each_sae(workshop: Path) -> None:
    init(*ARGUMENTS, *BOTH, "--sae-name", "early", "--sae-name", "late")
    saes = settings_of(workshop).saes
    assert {name: sae.hook for name, sae in saes.items()} == {"early": "model.layers.0", "late": "model.layers.1"}


def test_the_hook_is_what_the_checkpoint_says(workshop: Path) -> None:
    init(*ARGUMENTS, *FIRST)
    assert settings_of(workshop).saes["first_sae"].hook == "layers.0"


def test_an_sae_of_the_hub_needs_no_hook_and_may_lie_in_a_subfolder(workshop: Path) -> None:
    hub = ["--sae", "jbloom/GPT2-Small-SAEs-Reformatted", "--subfolder", "blocks.8.hook_resid_pre"]
    init(*ARGUMENTS, *hub)
    (declared,) = settings_of(workshop).saes.items()
    name, sae = declared
    assert name == "blocks_8_hook_resid_pre"
    assert (sae.path, sae.subfolder, sae.hook) == (hub[1], hub[3], None)


def test_a_glob_and_a_name_that_yaml_would_misread_are_written_as_text(workshop: Path) -> None:
    (workshop / "007: yes").mkdir()
    (workshop / "007: yes" / "a.txt").write_text("text")
    options = ["--model", "gpt2", "--corpus", "007: yes/*.txt", *FIRST, "--sae-name", "0123"]
    init(*options)
    declared = settings_of(workshop)
    assert declared.language_model.path == "gpt2"
    assert declared.corpus.source == "../../../007: yes/*.txt"


def test_another_folder_for_definitions(workshop: Path, tmp_path: Path) -> None:
    output = init(*ARGUMENTS, *FIRST, "--defs-folder", str(tmp_path / "elsewhere"))
    assert output.startswith(f"wrote {tmp_path / 'elsewhere' / 'new' / 'defs.yaml'}")
    assert "../../things/model" in (tmp_path / "elsewhere" / "new" / "defs.yaml").read_text()


def test_what_is_there_is_never_overwritten(workshop: Path) -> None:
    init(*ARGUMENTS, *FIRST)
    file = workshop / "workshop" / "defs" / "new" / "defs.yaml"
    file.write_text("mine")
    result = invoke("workshop.definitions", "init", "new", *ARGUMENTS, *FIRST)
    assert result.exit_code == 1
    assert f"{file.parent} is there already and is left as it is" in result.output
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "./nowhere"], "--model ./nowhere: there is no such folder"),
        (["--corpus", "no/*.txt"], "--corpus no/*.txt: there is no such file or folder, and the glob matches none"),
        (["--corpus", "texts.jsonl"], "--corpus texts.jsonl: there is no such file"),
        (
            ["--sae", "/nowhere/sae", "--sae-name", "a", "--sae-name", "b"],
            "--sae /nowhere/sae: there is no such folder",
        ),
        (["--subfolder", "../other"], "subfolder '../other' must lie inside path"),
        (["--sae", "../things/second"], "--hook is needed: the checkpoint in ../things/second does not say"),
        (["--hook", "a", "--hook", "b"], "2 --hook for 1 --sae: give one for all, or one for each"),
        (["--sae-name", "a", "--sae-name", "b"], "2 --sae-name for 1 --sae: give one for each, or none"),
        (["--sae", "../other/first-sae", "--hook", "a"], "two SAEs would be called first_sae: give a --sae-name"),
        (["--sae-name", "my sae"], "SAE name 'my sae' may hold letters, digits and underscores only"),
        (["--sae-name", "corpus"], "an SAE cannot be called 'corpus'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_be_known_to_be_wrong_is_one_sentence(workshop: Path, arguments: list[str], message: str) -> None:
    result = invoke("workshop.definitions", "init", "new", *ARGUMENTS, *FIRST, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert not (workshop / "workshop" / "defs").exists()


@pytest.mark.parametrize(("name", "message"), [("my demo", "letters, digits and"), ("corpora", "a folder beside")])
def test_a_name_that_cannot_be_one_is_refused(workshop: Path, name: str, message: str) -> None:
    result = invoke("workshop.definitions", "init", name, *ARGUMENTS, *FIRST)
    assert result.exit_code == 1
    assert message in result.output


def test_an_unknown_module_says_where_else_to_write(workshop: Path) -> None:
    result = invoke("no_such.module", "init", "new", *ARGUMENTS, *FIRST)
    assert "there is no module no_such.module: name the folder to write to with --defs-folder" in result.output
