"""What ``init`` finds out of model, corpus and SAEs before it writes."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from transformers import RobertaConfig, RobertaModel

from extraction_assets_tests.chats import CHAT, CHATML, make_chat_model, write_chats
from extraction_assets_tests.cli.new_project import ARGUMENTS, FIRST, init, refused, settings_of
from extraction_assets_tests.command import invoke


def test_the_length_that_init_writes_is_one_that_check_accepts(workshop: Path, home: Path) -> None:
    """RoBERTa's first rows of positions belong to padding: 66 of them are for 64 tokens."""
    folder = workshop.parent / "things" / "roberta"
    sizes = {"vocab_size": 320, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    RobertaModel(RobertaConfig(**sizes, num_hidden_layers=2, max_position_embeddings=66)).save_pretrained(folder)
    for file in (workshop.parent / "things" / "model").glob("*token*"):
        shutil.copy(file, folder)
    hook = ["--hook", "encoder.layer.0", "--sae", "../things/second"]
    init("--model", "../things/roberta", "--corpus", "../things/texts", *hook)
    assert settings_of(workshop).corpus.max_length == 64
    checked = invoke("workshop.definitions", "check", "new")
    assert checked.exit_code == 0, checked.output


def test_the_flow_of_the_readme_runs_on_a_folder_of_30_small_files(workshop: Path, home: Path) -> None:
    folder = workshop.parent / "things" / "small"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(f"text number {number}: the quick brown fox.\n" * (1 + number % 7))
    given = ["--model", "../things/model", "--corpus", "../things/small", *FIRST]
    output = init(*given)
    declared = settings_of(workshop)
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
    assert "corpus  5 samples, from " in init(*ARGUMENTS[:-1], "5", *FIRST)
    assert settings_of(workshop).evaluation_samples == 5


@pytest.mark.parametrize(("hook", "near"), [("model.layers.9", "layers"), ("blocks.7.hook_resid_post", "")])
def test_init_refuses_a_hook_that_the_model_does_not_have(workshop: Path, hook: str, near: str) -> None:
    message = refused(*ARGUMENTS, *FIRST, "--hook", hook)
    assert message.startswith("Error: ")
    assert near in message
    assert not (workshop / "workshop" / "defs").exists()


def test_a_hook_of_a_model_on_the_hub_is_not_known_and_said_so(workshop: Path) -> None:
    output = init("--model", "gpt2", "--corpus", "../things/texts", *FIRST)
    assert "hooks  whether the hooks exist is not known: gpt2 is on the hub, which init does not ask" in output
    assert "corpus  not counted, as gpt2 is on the hub (check counts)" in output
    assert settings_of(workshop).evaluation_samples == 10_000


def test_a_corpus_on_the_hub_is_not_counted_and_is_shuffled(workshop: Path) -> None:
    output = init("--model", "../things/model", "--corpus", "someone/texts", *FIRST)
    assert "corpus  not counted, as someone/texts is on the hub (check counts)" in output
    assert settings_of(workshop).corpus.shuffle_seed == 0


def test_what_cannot_be_shuffled_or_is_mixed_already_is_not(workshop: Path) -> None:
    rows = b"".join(b'{"text": "the quick brown fox"}\n' for _ in range(9))
    (workshop / "a.jsonl.gz").write_bytes(gzip.compress(rows))
    init("--model", "../things/model", "--corpus", "a.jsonl.gz", *FIRST, name="packed")
    init("--model", "../things/model", "--corpus", "standard-library", "--samples", "9", *FIRST, name="library")
    for name, samples in (("packed", 9), ("library", 9)):
        declared = settings_of(workshop, name)
        assert (declared.corpus.shuffle_seed, declared.evaluation_samples) == (None, samples)


def test_columns_and_kinds_that_init_is_given_are_counted_by_and_written(workshop: Path) -> None:
    (workshop / "a.json").write_text('{"body": "the quick brown fox"}\n' * 4)
    given = ["--model", "../things/model", *FIRST, "--corpus", "a.json"]
    assert "--corpus a.json: corpus source " in refused(*given)
    assert "has no column 'text'; it has 'body'" in refused(*given, "--read-as", "jsonl")
    init(*given, "--read-as", "jsonl", "--text-column", "body")
    declared = settings_of(workshop)
    assert (declared.corpus.read_as, declared.corpus.text_column, declared.evaluation_samples) == ("jsonl", "body", 4)


def test_a_column_of_chats_is_found_where_there_is_no_text(workshop: Path) -> None:
    make_chat_model(workshop / "chat-model", CHATML)
    given = ["--model", "chat-model", *FIRST, "--corpus", "a.jsonl"]
    write_chats(workshop / "a.jsonl", [CHAT] * 2, "turns")
    assert "has no column 'text'; it has 'turns'" in refused(*given)
    init(*given, "--messages-column", "turns", name="named")
    assert settings_of(workshop, "named").corpus.messages_column == "turns"
    write_chats(workshop / "a.jsonl", [CHAT] * 3, "conversations")
    init(*given)
    declared = settings_of(workshop)
    assert (declared.corpus.messages_column, declared.evaluation_samples) == ("conversations", 9)


def test_chats_get_samples_that_hold_them_and_texts_the_usual_ones(workshop: Path) -> None:
    _chat_model(workshop, positions=4096)
    write_chats(workshop / "a.jsonl", [CHAT])
    given = ["--model", "chat-model", *FIRST, "--corpus"]
    assert "corpus  holds chats, in its column messages\n" in init(*given, "a.jsonl")
    init(*given, "../things/texts", name="texts")
    lengths = [settings_of(workshop, name).corpus.max_length for name in ("new", "texts")]
    assert lengths == [1024, 128]


def _chat_model(workshop: Path, positions: int) -> None:
    config = make_chat_model(workshop / "chat-model", CHATML) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": positions}))


def test_init_and_check_say_how_many_chats_are_cut(workshop: Path) -> None:
    _chat_model(workshop, positions=4096)
    write_chats(workshop / "a.jsonl", [CHAT, CHAT, CHAT[:1]])
    longer = "2 of 3 chats are longer than max_length (100 tokens) and are cut"
    given = ["--model", "chat-model", *FIRST, "--corpus", "a.jsonl"]
    assert longer in init(*given, "--max-length", "100")
    checked = invoke("workshop.definitions", "check", "new", "--device", "cpu")
    assert f"warning  {longer}" in checked.output
    assert "cut" not in init(*given, "--max-length", "256", name="whole")


def test_a_model_without_a_chat_template_is_refused_for_chats(workshop: Path) -> None:
    write_chats(workshop / "a.jsonl", [CHAT] * 3)
    message = refused("--model", "../things/model", *FIRST, "--corpus", "a.jsonl")
    assert re.search("tokenizer of .*/things/model has no chat template of its own", message)
    assert "--corpus a.jsonl, chats in its column messages: the corpus holds chats" in message
    assert "put its chat_template.jinja beside the tokenizer's files" in message


def test_a_corpus_without_text_or_with_a_broken_file_is_refused(workshop: Path) -> None:
    given = ["--model", "../things/model", *FIRST, "--corpus", "files"]
    (workshop / "files").mkdir()
    assert "matches no file" in refused(*given)
    (workshop / "files" / "a.txt").write_text("")
    assert "holds no text" in refused(*given)
    (workshop / "files" / "a.txt").write_bytes(b"\xff\xfe")
    assert "a.txt is not UTF-8 text" in refused(*given)


def test_a_folder_that_is_no_model_is_refused(workshop: Path) -> None:
    (workshop / "empty").mkdir()
    assert "--model empty: the folder holds no config.json" in refused(*ARGUMENTS, *FIRST, "--model", "empty")


def test_a_number_or_a_name_that_cannot_be_meant_is_refused(workshop: Path) -> None:
    assert "evaluation_samples must be at most" in refused(*ARGUMENTS, *FIRST, "--samples", "9" * 30)
    assert "may have 200: it is part of file names" in refused(*ARGUMENTS, *FIRST, "--sae-name", "s" * 300)
