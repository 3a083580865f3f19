"""``init`` and ``check``: a new extraction in somebody's project, from nothing to rows."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest
import yaml
from transformers import RobertaConfig, RobertaModel

from extraction_assets.early_checks import sample_count
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.chats import CHAT, CHATML, make_chat_model, write_chats
from extraction_assets_tests.command import declare, invoke
from extraction_assets_tests.tiny import make_faithful_sae, make_language_model, make_sae, make_settings, make_texts

DEFINITIONS = """
from pathlib import Path

import dagster as dg
from extraction_assets import default_resources


@dg.definitions
def defs():
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(loaded, dg.Definitions(resources=default_resources(), executor=dg.in_process_executor))
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project ``workshop`` without extractions, in the working directory; model, SAEs and texts beside it."""
    package = tmp_path / "project" / "workshop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "definitions.py").write_text(dedent(DEFINITIONS))
    (package.parent / "pyproject.toml").write_text(
        '[project]\nname = "workshop"\nversion = "0"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        '[tool.dg.project]\nroot_module = "workshop"\ncode_location_target_module = "workshop.definitions"\n'
    )
    make_language_model(tmp_path / "things" / "model")
    make_texts(tmp_path / "things" / "texts")
    make_faithful_sae(tmp_path / "things" / "first-sae", hook="layers.0")
    make_faithful_sae(tmp_path / "things" / "second")
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv("EXTRACTION_PROGRESS", "log")
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.syspath_prepend(str(package.parent))
    yield package.parent
    for name in [name for name in sys.modules if name.split(".")[0] == "workshop"]:
        del sys.modules[name]


ARGUMENTS = ["--model", "../things/model", "--corpus", "../things/texts", "--max-length", "16", "--samples", "23"]
FIRST = ["--sae", "../things/first-sae"]
BOTH = [*FIRST, "--sae", "../things/second", "--hook", "model.layers.0", "--hook", "model.layers.1"]


def _init(*arguments: str, name: str = "new") -> str:
    result = invoke("workshop.definitions", "init", name, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def _declared(workshop: Path, name: str = "new") -> ExtractionSettings:
    file = workshop / "workshop" / "defs" / name / "defs.yaml"
    return ExtractionSettings.model_validate(yaml.safe_load(file.read_text())["attributes"])


def test_what_init_writes_is_checked_and_run(workshop: Path, home: Path) -> None:
    file = workshop / "workshop" / "defs" / "new" / "defs.yaml"
    command = "extraction-assets --module workshop.definitions"
    assert _init(*ARGUMENTS, *BOTH).splitlines() == [
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
    _init(*ARGUMENTS, *FIRST, "--sae", "someone/some-sae", "--hook", "layers.1", name="mixed")
    text = (workshop / "workshop" / "defs" / "mixed" / "defs.yaml").read_text()
    assert "path: ../../../../things/model " in text
    declared = _declared(workshop, "mixed")
    assert declared.corpus.source == "../../../../things/texts"
    assert {name: sae.path for name, sae in declared.saes.items()} == {
        "first_sae": "../../../../things/first-sae",
        "some_sae": "someone/some-sae",
    }
    assert (declared.corpus.max_length, declared.evaluation_samples) == (16, 23)


def test_names_and_hooks_may_be_given_for_each_sae(workshop: Path) -> None:
    _init(*ARGUMENTS, *BOTH, "--sae-name", "early", "--sae-name", "late")
    saes = _declared(workshop).saes
    assert {name: sae.hook for name, sae in saes.items()} == {"early": "model.layers.0", "late": "model.layers.1"}


def test_the_hook_is_what_the_checkpoint_says(workshop: Path) -> None:
    _init(*ARGUMENTS, *FIRST)
    assert _declared(workshop).saes["first_sae"].hook == "layers.0"


def test_an_sae_of_the_hub_needs_no_hook_and_may_lie_in_a_subfolder(workshop: Path) -> None:
    hub = ["--sae", "jbloom/GPT2-Small-SAEs-Reformatted", "--subfolder", "blocks.8.hook_resid_pre"]
    _init(*ARGUMENTS, *hub)
    (declared,) = _declared(workshop).saes.items()
    name, sae = declared
    assert name == "blocks_8_hook_resid_pre"
    assert (sae.path, sae.subfolder, sae.hook) == (hub[1], hub[3], None)


def test_a_glob_and_a_name_that_yaml_would_misread_are_written_as_text(workshop: Path) -> None:
    (workshop / "007: yes").mkdir()
    (workshop / "007: yes" / "a.txt").write_text("text")
    options = ["--model", "gpt2", "--corpus", "007: yes/*.txt", *FIRST, "--sae-name", "0123"]
    _init(*options)
    declared = _declared(workshop)
    assert declared.language_model.path == "gpt2"
    assert declared.corpus.source == "../../../007: yes/*.txt"


def test_another_folder_for_definitions(workshop: Path, tmp_path: Path) -> None:
    output = _init(*ARGUMENTS, *FIRST, "--defs-folder", str(tmp_path / "elsewhere"))
    assert output.startswith(f"wrote {tmp_path / 'elsewhere' / 'new' / 'defs.yaml'}")
    assert "../../things/model" in (tmp_path / "elsewhere" / "new" / "defs.yaml").read_text()


def test_what_is_there_is_never_overwritten(workshop: Path) -> None:
    _init(*ARGUMENTS, *FIRST)
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


# What init finds out


def _refused(*arguments: str) -> str:
    """The one sentence that ``init`` refuses with."""
    result = invoke("workshop.definitions", "init", "new", *arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    return line


def test_the_length_that_init_writes_is_one_that_check_accepts(workshop: Path, home: Path) -> None:
    """RoBERTa's first rows of positions belong to padding: 66 of them are for 64 tokens."""
    folder = workshop.parent / "things" / "roberta"
    sizes = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    RobertaModel(RobertaConfig(**sizes, num_hidden_layers=2, max_position_embeddings=66)).save_pretrained(folder)
    for file in (workshop.parent / "things" / "model").glob("*token*"):
        shutil.copy(file, folder)
    hook = ["--hook", "encoder.layer.0", "--sae", "../things/second"]
    _init("--model", "../things/roberta", "--corpus", "../things/texts", *hook)
    assert _declared(workshop).corpus.max_length == 64
    checked = invoke("workshop.definitions", "check", "new")
    assert checked.exit_code == 0, checked.output


def test_the_flow_of_the_readme_runs_on_a_folder_of_30_small_files(workshop: Path, home: Path) -> None:
    folder = workshop.parent / "things" / "small"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(f"text number {number}: the quick brown fox.\n" * (1 + number % 7))
    given = ["--model", "../things/model", "--corpus", "../things/small", *FIRST]
    output = _init(*given)
    declared = _declared(workshop)
    assert (declared.corpus.max_length, declared.corpus.shuffle_seed) == (64, 0), "the tiny model has 64 positions"
    assert 30 <= declared.evaluation_samples < 200
    samples = f"{declared.evaluation_samples} samples, from 30 of 30 documents"
    assert f"corpus  {samples} (there are no more)" in output
    written = (workshop / "workshop" / "defs" / "new" / "defs.yaml").read_text()
    assert f"evaluation_samples: {declared.evaluation_samples} # samples to run, as many as were counted;" in written
    checked = invoke("workshop.definitions", "check", "new")
    assert checked.exit_code == 0, checked.output
    assert re.search(rf"^corpus small +{samples}$", checked.output, re.MULTILINE)
    assert "warning" not in checked.output
    run = invoke("workshop.definitions", "run", "new")
    assert run.exit_code == 0, run.output
    again = invoke("workshop.definitions", "check", "new")
    assert samples in again.output


def test_init_asks_for_no_more_samples_than_asked_for(workshop: Path) -> None:
    assert "corpus  5 samples, from " in _init(*ARGUMENTS[:-1], "5", *FIRST)
    assert _declared(workshop).evaluation_samples == 5


@pytest.mark.parametrize(("hook", "near"), [("model.layers.9", "layers"), ("blocks.7.hook_resid_post", "")])
def test_init_refuses_a_hook_that_the_model_does_not_have(workshop: Path, hook: str, near: str) -> None:
    message = _refused(*ARGUMENTS, *FIRST, "--hook", hook)
    assert message.startswith("Error: ")
    assert near in message
    assert not (workshop / "workshop" / "defs").exists()


def test_a_hook_of_a_model_on_the_hub_is_not_known_and_said_so(workshop: Path) -> None:
    output = _init("--model", "gpt2", "--corpus", "../things/texts", *FIRST)
    assert "hooks  whether the hooks exist is not known: gpt2 is on the hub, which init does not ask" in output
    assert "corpus  not counted, as gpt2 is on the hub (check counts)" in output
    assert _declared(workshop).evaluation_samples == 10_000


def test_a_corpus_on_the_hub_is_not_counted_and_is_shuffled(workshop: Path) -> None:
    output = _init("--model", "../things/model", "--corpus", "someone/texts", *FIRST)
    assert "corpus  not counted, as someone/texts is on the hub (check counts)" in output
    assert _declared(workshop).corpus.shuffle_seed == 0


def test_what_cannot_be_shuffled_or_is_mixed_already_is_not(workshop: Path) -> None:
    rows = b"".join(b'{"text": "the quick brown fox"}\n' for _ in range(9))
    (workshop / "a.jsonl.gz").write_bytes(gzip.compress(rows))
    _init("--model", "../things/model", "--corpus", "a.jsonl.gz", *FIRST, name="packed")
    _init("--model", "../things/model", "--corpus", "standard-library", "--samples", "9", *FIRST, name="library")
    for name, samples in (("packed", 9), ("library", 9)):
        declared = _declared(workshop, name)
        assert (declared.corpus.shuffle_seed, declared.evaluation_samples) == (None, samples)


def test_columns_and_kinds_that_init_is_given_are_counted_by_and_written(workshop: Path) -> None:
    (workshop / "a.json").write_text('{"body": "the quick brown fox"}\n' * 4)
    given = ["--model", "../things/model", *FIRST, "--corpus", "a.json"]
    assert "--corpus a.json: corpus source " in _refused(*given)
    assert "has no column 'text'; it has 'body'" in _refused(*given, "--read-as", "jsonl")
    _init(*given, "--read-as", "jsonl", "--text-column", "body")
    declared = _declared(workshop)
    assert (declared.corpus.read_as, declared.corpus.text_column, declared.evaluation_samples) == ("jsonl", "body", 4)


def test_a_column_of_chats_is_found_where_there_is_no_text(workshop: Path) -> None:
    make_chat_model(workshop / "chat-model", CHATML)
    given = ["--model", "chat-model", *FIRST, "--corpus", "a.jsonl"]
    write_chats(workshop / "a.jsonl", [CHAT] * 2, "turns")
    assert "has no column 'text'; it has 'turns'" in _refused(*given)
    _init(*given, "--messages-column", "turns", name="named")
    assert _declared(workshop, "named").corpus.messages_column == "turns"
    write_chats(workshop / "a.jsonl", [CHAT] * 3, "conversations")
    _init(*given)
    declared = _declared(workshop)
    assert (declared.corpus.messages_column, declared.evaluation_samples) == ("conversations", 9)


def test_chats_get_samples_that_hold_them_and_texts_the_usual_ones(workshop: Path) -> None:
    _chat_model(workshop, positions=4096)
    write_chats(workshop / "a.jsonl", [CHAT])
    given = ["--model", "chat-model", *FIRST, "--corpus"]
    assert "corpus  holds chats, in its column messages\n" in _init(*given, "a.jsonl")
    _init(*given, "../things/texts", name="texts")
    lengths = [_declared(workshop, name).corpus.max_length for name in ("new", "texts")]
    assert lengths == [1024, 128]


def _chat_model(workshop: Path, positions: int) -> None:
    config = make_chat_model(workshop / "chat-model", CHATML) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": positions}))


def test_init_and_check_say_how_many_chats_are_cut(workshop: Path) -> None:
    _chat_model(workshop, positions=4096)
    write_chats(workshop / "a.jsonl", [CHAT, CHAT, CHAT[:1]])
    longer = "2 of 3 chats are longer than max_length (100 tokens) and are cut"
    given = ["--model", "chat-model", *FIRST, "--corpus", "a.jsonl"]
    assert longer in _init(*given, "--max-length", "100")
    checked = invoke("workshop.definitions", "check", "new", "--device", "cpu")
    assert f"warning  {longer}" in checked.output
    assert "cut" not in _init(*given, "--max-length", "256", name="whole")


def test_a_model_without_a_chat_template_is_refused_for_chats(workshop: Path) -> None:
    write_chats(workshop / "a.jsonl", [CHAT] * 3)
    refused = _refused("--model", "../things/model", *FIRST, "--corpus", "a.jsonl")
    assert re.search("tokenizer of .*/things/model has no chat template of its own", refused)
    assert "--corpus a.jsonl, chats in its column messages: the corpus holds chats" in refused
    assert "put its chat_template.jinja beside the tokenizer's files" in refused


def test_a_corpus_without_text_or_with_a_broken_file_is_refused(workshop: Path) -> None:
    given = ["--model", "../things/model", *FIRST, "--corpus", "files"]
    (workshop / "files").mkdir()
    assert "matches no file" in _refused(*given)
    (workshop / "files" / "a.txt").write_text("")
    assert "holds no text" in _refused(*given)
    (workshop / "files" / "a.txt").write_bytes(b"\xff\xfe")
    assert "a.txt is not UTF-8 text" in _refused(*given)


def test_a_folder_that_is_no_model_is_refused(workshop: Path) -> None:
    (workshop / "empty").mkdir()
    assert "--model empty: the folder holds no config.json" in _refused(*ARGUMENTS, *FIRST, "--model", "empty")


def test_a_number_or_a_name_that_cannot_be_meant_is_refused(workshop: Path) -> None:
    assert "evaluation_samples must be at most" in _refused(*ARGUMENTS, *FIRST, "--samples", "9" * 30)
    assert "may have 200: it is part of file names" in _refused(*ARGUMENTS, *FIRST, "--sae-name", "s" * 300)


# ---------------------------------------------------------------------------------------------------------------- check


def test_a_check_of_too_few_samples_says_how_many_there_are(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    settings = make_settings(tiny_folder, saes=saes, evaluation_samples=10_000, start_sample=3)
    output = _check(monkeypatch, settings)
    found = re.search(r"corpus texts +(\d+) samples, from 3 of 3 documents", output)
    assert found
    there = int(found[1])
    assert f"error  the corpus holds {there} samples of 16 positions, but 10003 are requested" in output
    assert f"lower evaluation_samples to {there - 3} or add text" in output
    fewer = make_settings(tiny_folder, saes=saes, evaluation_samples=there - 3, start_sample=3)
    assert invoke(declare(monkeypatch, fewer), "check", "tiny").exit_code == 0


def test_a_check_that_has_no_time_to_count_says_so(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_count, "SECONDS", 0.0)
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    result = invoke(declare(monkeypatch, make_settings(tiny_folder, saes=saes)), "check", "tiny")
    assert result.exit_code == 0, result.output
    assert "samples were counted in 0 s, of 23 that are requested" in result.output


def test_samples_of_the_first_documents_alone_are_reported(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    warning = "warning  no sample comes from a document after the first 1 of 3: set corpus.shuffle"
    for corpus, is_reported in (({}, True), ({"shuffle_seed": 0}, False)):
        corpus |= {"source": str(tiny_folder / "texts"), "max_length": 16}
        settings = make_settings(tiny_folder, saes=saes, evaluation_samples=3, corpus=corpus)
        output = invoke(declare(monkeypatch, settings), "check", "tiny").output
        assert (warning in output) == is_reported


def _check(monkeypatch: pytest.MonkeyPatch, settings: ExtractionSettings) -> str:
    """Output of a check that finds an error."""
    result = invoke(declare(monkeypatch, settings), "check", settings.name)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "\nok  " not in result.output
    return result.output


def _with_sae(folder: Path, path: Path, **sae: object) -> ExtractionSettings:
    return make_settings(folder, saes={"own": {"path": str(path), "hook": "layers.1", **sae}})


def test_a_check_of_an_sae_of_another_width_reads_no_model_and_names_both(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = _check(monkeypatch, _with_sae(tiny_folder, make_sae(tmp_path / "wide", d_in=24)))
    assert "error  SAE 'own'" in output
    assert "d_in = 24, but hook 'layers.1'" in output
    assert "explained" not in output


def test_a_check_of_an_unknown_hook_is_one_sentence(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _with_sae(tiny_folder, tiny_folder / "relu", hook="layers.9")
    assert _check(monkeypatch, settings).splitlines()[-1].startswith("error  the model has no module 'layers.9'")


@pytest.mark.slow
def test_a_check_that_the_disk_is_too_small(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_500_000))
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    result = invoke(declare(monkeypatch, make_settings(tiny_folder, saes=saes)), "check", "tiny")
    assert result.exit_code == 0, result.output
    corpus = {"source": "standard-library", "max_length": 16}
    more = make_settings(tiny_folder, saes=saes, evaluation_samples=700, corpus=corpus)
    output = _check(monkeypatch, more)
    assert "where 1.5 MB are free: own/top_k_table" in output
    assert "disk   own/results" in output, "what was found before is shown"


@pytest.mark.slow
def test_what_keep_leaves_out_makes_a_full_disk_a_warning(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes = {"own": {"path": str(make_faithful_sae(tmp_path / "faithful")), "hook": "layers.1"}}
    keep = {"model_activations": False, "sae_features": False}
    settings = make_settings(tiny_folder, saes=saes, keep=keep, corpus={"source": "standard-library", "max_length": 64})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_400_000))
    result = invoke(declare(monkeypatch, settings), "check", "tiny")
    assert result.exit_code == 0, result.output
    assert "warning  about" in result.output
    assert "`run tiny --missing` writes nothing else" in result.output


@pytest.mark.slow
def test_a_wrong_layer_of_the_demo_is_named_with_the_right_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import extraction_assets.demo

    demo = Path(extraction_assets.demo.__file__).parent
    sae = {"path": str(demo / "sae"), "hook": "model.layers.2", "minimum_variance_explained": 0.85}
    settings = ExtractionSettings.model_validate(
        {
            "name": "wrong",
            "language_model": {"path": str(demo / "language_model")},
            "corpus": {"source": "standard-library"},
            "saes": {"layer": sae},
            "evaluation_samples": 8,
        }
    )
    output = _check(monkeypatch, settings)
    assert re.search(r"SAE 'layer' at 'model\.layers\.2' explains 0\.[67]\d* of the variance", output)
    assert re.search(r"At hook 'model\.layers\.1' it explains 0\.(8[5-9]|9)", output)
    assert not home.exists()


@pytest.mark.slow
def test_a_tokenizer_of_another_model_is_found(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaConfig, LlamaModel

    shutil.copytree(tiny_folder / "model", tmp_path / "model")
    config = LlamaConfig.from_pretrained(tmp_path / "model")
    config.vocab_size = 100
    LlamaModel(config).save_pretrained(tmp_path / "model")
    settings = make_settings(tiny_folder, language_model={"path": str(tmp_path / "model")})
    assert "but the model has embeddings of 100 tokens only" in _check(monkeypatch, settings)
    run = invoke(declare(monkeypatch, settings), "run", "tiny")
    assert run.exit_code == 1
    assert "but the model has embeddings of 100 tokens only" in run.output


def test_an_unknown_extraction_is_one_sentence(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder))
    result = invoke(module, "check", "nope")
    assert result.output == "Error: no extraction 'nope'; declared are: tiny\n"


def test_help_loads_neither_torch_nor_dagster() -> None:
    code = (
        "import sys; from extraction_assets.cli import main; import click\n"
        "try: main(['check', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'dagster', 'transformers'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit code 1 where a run would" in done.stdout
