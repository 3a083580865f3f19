"""Messages of chats from columns: what is taken, and the one error for what is not."""

from pathlib import Path
from typing import Any

import pytest

from extraction_assets.engine.corpora.documents import Conversation, CorpusError
from extraction_assets.engine.corpora.messages import conversation
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.settings import CorpusSettings
from extraction_assets_tests.engine.corpora.build import WRITERS, write_jsonl

USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}


def read(value: Any) -> list[dict[str, Any]]:
    return conversation(value, "messages", "row 3").messages


@pytest.mark.parametrize("name", WRITERS)
def test_every_container_gives_the_messages_of_a_column(tmp_path: Path, name: str) -> None:
    rows = [{"chat": [USER, ASSISTANT], "name": "one"}, {"chat": [ASSISTANT], "name": "two"}]
    source = WRITERS[name](tmp_path / name, rows)
    corpus = CorpusSettings(source=str(source), messages_column="chat", id_column="name")
    found = [(name, one.messages) for name, one in find_source(corpus).documents() if isinstance(one, Conversation)]
    assert found == [("one", [USER, ASSISTANT]), ("two", [ASSISTANT])]


def test_messages_of_sharegpt_get_the_roles_of_templates() -> None:
    said = [{"from": "system", "value": "be brief"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes?"}]
    assert read(said) == [{"role": "system", "content": "be brief"}, USER, ASSISTANT]


def test_fields_that_are_none_are_left_out() -> None:
    assert read([{**USER, "tool_calls": None, "name": None}]) == [USER]
    parts = [{"type": "text", "text": "hi", "image": None}]
    assert read([{"role": "user", "content": parts}]) == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def test_a_tool_call_needs_no_content() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
    assert read([call]) == [{"role": "assistant", "tool_calls": call["tool_calls"]}]


REFUSED = {
    "row 3: column 'messages' holds str 'hi', not a list of messages": "hi",
    "row 3: column 'messages' holds NoneType None, not a list of messages": None,
    "row 3: column 'messages' holds no message: leave the row out": [],
    "message 2 of 2 is str 'hi', not an object with role and content": [USER, "hi"],
    "message 1 of 1 has the role NoneType None: give it one": [{"content": "hi"}],
    "message 1 of 1 has the role int 3": [{"role": 3, "content": "hi"}],
    "message 1 of 1 has the role str ' '": [{"role": " ", "content": "hi"}],
    r"message 1 of 1 \(user\) has no content: it holds 'role' alone": [{"role": "user", "content": None}],
    "message 1 of 1 has the content int 7, which is neither text": [{"role": "user", "content": 7}],
    "a part of its content that is str 'image': text parts alone": [{"role": "user", "content": [{"type": "image"}]}],
    "a part of its content that is str 'hi'": [{"role": "user", "content": ["hi"]}],
    "message 1 of 1 holds text that is not Unicode": [{"role": "user", "content": "\ud800"}],
}


@pytest.mark.parametrize(("message", "value"), REFUSED.items())
def test_what_is_no_chat_is_refused_with_its_row(message: str, value: Any) -> None:
    with pytest.raises(CorpusError, match=message):
        read(value)


def test_an_error_names_file_row_and_column(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"messages": [USER]}, {"messages": []}])
    corpus = CorpusSettings(source=str(source), messages_column="messages")
    expected = rf"{source}, line 2 \(document 'a.jsonl:2'\): column 'messages' holds no message"
    with pytest.raises(CorpusError, match=expected):
        list(find_source(corpus).documents())


def test_a_key_of_a_message_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"messages": [{"role": "user", "role": "assistant", "content": "hi"}]}\n')
    corpus = CorpusSettings(source=str(tmp_path / "a.jsonl"), messages_column="messages")
    with pytest.raises(CorpusError, match="message 1 of 1 has the key 'role' twice"):
        list(find_source(corpus).documents())


def test_a_missing_text_column_beside_chats_says_how_to_read_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"messages": [USER]}])
    with pytest.raises(CorpusError, match=r"has no column 'text'.*set corpus.messages_column to messages"):
        list(find_source(CorpusSettings(source=str(source))).documents())


@pytest.mark.parametrize("field", ["text_column", "token_column"])
def test_chats_are_read_from_one_column_alone(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} and messages_column are both set"):
        CorpusSettings.model_validate({"source": "a.jsonl", "messages_column": "messages", field: "other"})


def test_text_files_have_no_messages(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hi")
    with pytest.raises(CorpusError, match=r"corpus.messages_column is 'messages', but corpus source .* is text files"):
        find_source(CorpusSettings(source=str(tmp_path / "a.txt"), messages_column="messages"))
