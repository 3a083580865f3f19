"""Conversations through real chat templates: the text is transformers', and each message is found in it."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.chat_template_utils as transformers_templates

from extraction_assets.engine.corpora import template_marks
from extraction_assets.engine.corpora.chat_template import ChatTemplate, RenderedChat
from extraction_assets.engine.corpora.documents import Conversation, CorpusError
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.tokenizers.tokenizer import load_tokenizer
from extraction_assets_tests.chats import (
    CHAT,
    CHATML,
    GEMMA_2,
    GEMMA_3,
    LLAMA_2,
    LLAMA_3,
    MISTRAL,
    MISTRAL_LAST,
    QWEN_3,
    TEMPLATES,
    make_chat_model,
)

Tokenizer = Callable[[str | dict[str, str] | None], Any]
SYSTEM = {"role": "system", "content": "be brief"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One tokenizer, given a template."""
    folder = make_chat_model(tmp_path_factory.mktemp("chat") / "model", None)
    loaded = load_tokenizer(LocalCheckpoint(folder))

    def with_template(template: str | dict[str, str] | None) -> Any:
        loaded.chat_template = template
        return loaded

    return with_template


def render(tokenizer: Any, messages: list[dict[str, Any]]) -> RenderedChat:
    return ChatTemplate(tokenizer).render(Conversation(messages, "a.jsonl, line 1: column 'messages'"))


def said(chat: RenderedChat) -> list[tuple[str, str]]:
    return [(role, chat.text[start:stop]) for role, start, stop in chat.messages]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_each_message_is_found_where_the_template_puts_it(tokenizer: Tokenizer, template: str) -> None:
    found = said(render(tokenizer(template), CHAT))
    assert found == [(message["role"], message["content"]) for message in CHAT]  # "user" is a content and a header too


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_text_is_that_of_transformers(tokenizer: Tokenizer, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Fixed":
            return cls(2024, 7, 26)

    monkeypatch.setattr(transformers_templates, "datetime", Fixed)
    loaded = tokenizer(template)
    assert render(loaded, CHAT).text == loaded.apply_chat_template(CHAT, tokenize=False)


@pytest.mark.parametrize("template", [GEMMA_3, LLAMA_2, LLAMA_3, CHATML, QWEN_3])
def test_a_system_message_is_found_also_inside_the_first_turn(tokenizer: Tokenizer, template: str) -> None:
    assert said(render(tokenizer(template), [SYSTEM, *CHAT[:2]])) == [
        ("system", "be brief"),
        ("user", "the quick brown fox"),
        ("assistant", "jumps over the lazy dog."),
    ]


def test_a_system_message_that_the_template_moves_stands_where_it_is_read(tokenizer: Tokenizer) -> None:
    found = said(render(tokenizer(MISTRAL_LAST), [SYSTEM, *CHAT[:3]]))
    assert [role for role, _ in found] == ["user", "assistant", "system", "user"]
    assert found[2:] == [("system", "be brief"), ("user", "user")]


@pytest.mark.parametrize("template", [GEMMA_2, LLAMA_3, MISTRAL])
def test_white_space_at_the_ends_of_a_message_is_no_part_of_it(tokenizer: Tokenizer, template: str) -> None:
    found = said(render(tokenizer(template), [{"role": "user", "content": "\n\n a  b \n"}]))
    assert found == [("user", "a  b")]


def test_reasoning_that_the_template_drops_is_no_part_of_the_message(tokenizer: Tokenizer) -> None:
    thinking = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nfour"}
    found = render(tokenizer(QWEN_3), [CHAT[0], thinking, CHAT[0]])
    assert said(found)[1] == ("assistant", "four")
    assert "hm" not in found.text


HEADED = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1] }}<end>{% endfor %}"
"""As DeepSeek's: what it drops and what it writes in its place end by the same character."""


@pytest.mark.parametrize("space", ["", "\n\n"])
def test_the_header_of_a_message_is_no_part_of_it_where_it_ends_as_what_was_dropped(
    tokenizer: Tokenizer, space: str
) -> None:
    answers = [f"<think>\n{thought}\n</think>{space}fo</ur>" for thought in ("hm", "no", "four")]
    found = said(render(tokenizer(HEADED), [{"role": "assistant", "content": one} for one in ("one", *answers)]))
    assert found == [("assistant", "one"), *[("assistant", "fo</ur>")] * 3]


def test_a_message_that_is_dropped_to_its_end_has_no_span(tokenizer: Tokenizer) -> None:
    found = said(render(tokenizer(HEADED), [CHAT[0], {"role": "assistant", "content": "hm</think>"}]))
    assert found == [("user", "the quick brown fox")]


def test_what_stands_after_a_message_is_no_part_of_it_where_it_begins_as_what_was_dropped(tokenizer: Tokenizer) -> None:
    template = "{% for m in messages %}{{ m['content'].split('<tool>')[0] }}<end>{% endfor %}"
    assert said(render(tokenizer(template), [{"role": "assistant", "content": "four <tool>add"}])) == [
        ("assistant", "four")
    ]


def test_reasoning_that_the_template_keeps_is_part_of_the_message(tokenizer: Tokenizer) -> None:
    inside = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nfour"}
    beside = {"role": "assistant", "reasoning_content": "hm", "content": "four"}
    for thinking in (inside, beside):
        ((_, text),) = said(render(tokenizer(QWEN_3), [CHAT[0], thinking]))[1:]
        assert text.endswith("hm\n</think>\n\nfour")


def test_a_message_that_the_template_looks_at_the_ends_of_is_found(tokenizer: Tokenizer) -> None:
    answer = {"role": "user", "content": "<tool_response>4</tool_response>"}
    call = {"role": "assistant", "reasoning_content": "hm", "content": "so"}
    found = render(tokenizer(QWEN_3), [CHAT[0], call, answer, {"role": "assistant", "content": "four"}])
    assert said(found) == [
        ("user", "the quick brown fox"),
        ("assistant", "hm\n</think>\n\nso"),
        ("user", "<tool_response>4</tool_response>"),
        ("assistant", "four"),
    ]


def test_a_message_of_which_the_template_keeps_the_middle_is_found(tokenizer: Tokenizer) -> None:
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'].split('|')[1] }}\n{% endfor %}"
    assert said(render(tokenizer(template), [{"role": "user", "content": "a| the fox|b"}])) == [("user", "the fox")]


def test_a_message_of_a_known_role_that_the_template_leaves_out_has_no_span(tokenizer: Tokenizer) -> None:
    found = said(render(tokenizer(CHATML), [CHAT[0], {"role": "tool", "content": "4"}, CHAT[1]]))
    assert [role for role, _ in found] == ["user", "assistant"]


def test_a_tool_call_is_part_of_its_message(tokenizer: Tokenizer) -> None:
    call = {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": "x"}}}],
    }
    found = said(render(tokenizer(QWEN_3), [CHAT[0], {"content": "", **call}, {"role": "tool", "content": "4"}]))
    assert found[1:] == [("assistant", 'add", "arguments": {"a": "x'), ("tool", "4")]


def test_an_empty_message_has_no_span(tokenizer: Tokenizer) -> None:
    assert said(render(tokenizer(CHATML), [{"role": "user", "content": " "}, CHAT[1]])) == [
        ("assistant", "jumps over the lazy dog.")
    ]


def test_private_characters_of_a_text_are_not_taken_for_marks(tokenizer: Tokenizer) -> None:
    icons = "".join(map(chr, range(0xF0000, 0xF0009)))
    assert said(render(tokenizer(CHATML), [{"role": "user", "content": icons}])) == [("user", icons)]


def test_more_texts_than_there_are_marks_are_refused(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_marks, "_PRIVATE", (range(0xF0000, 0xF0007),))
    with pytest.raises(CorpusError, match="column 'messages' holds more texts than can be told apart"):
        render(tokenizer(CHATML), CHAT)


PARTS = [{"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}]


def test_text_parts_go_to_a_template_that_reads_them(tokenizer: Tokenizer) -> None:
    assert said(render(tokenizer(GEMMA_3), PARTS)) == [("user", "onetwo")]  # it trims each


@pytest.mark.parametrize("template", [CHATML, "{% for m in messages %}{{ m['content'] }}{% endfor %}"])
def test_text_parts_are_joined_for_a_template_that_takes_text(tokenizer: Tokenizer, template: str) -> None:
    assert said(render(tokenizer(template), PARTS)) == [("user", "one \ntwo")]


def test_text_becomes_a_part_for_a_template_that_takes_parts_alone(tokenizer: Tokenizer) -> None:
    template = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"
    assert said(render(tokenizer(template), CHAT[:1])) == [("user", "the quick brown fox")]


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%B %-d, %Y", "%A"])
def test_today_is_the_same_day_every_day(tokenizer: Tokenizer, form: str) -> None:
    text = render(tokenizer(f"{{{{ strftime_now('{form}') }}}}" + CHATML), CHAT).text
    assert text.startswith(datetime.datetime(2024, 7, 26).strftime(form))


def test_a_template_that_requests_the_date_keeps_its_first_line(tokenizer: Tokenizer) -> None:
    template = "\n  a{{ strftime_now('%Y') }}"
    assert render(tokenizer(template), CHAT).text == "\n  a2024"


REFUSED = {
    "refuses the messages .system, user.: System role not supported": (GEMMA_2, [SYSTEM, CHAT[0]]),
    "refuses the messages .user, user.: Conversation roles must alternate": (MISTRAL, [CHAT[0], CHAT[0]]),
    "Only user and assistant roles are supported!": (
        MISTRAL,
        [CHAT[0], CHAT[1], CHAT[0], {"role": "tool", "content": "a"}],
    ),
    "message 1 of 1: .* does not know the role 'narrator' and leaves the message out": (
        CHATML,
        [{"role": "narrator", "content": "once"}],
    ),
    "message 1 of 1 .user.: .* changes it, so that it cannot be found": (
        "{% for m in messages %}{{ 'is' if m['content'] == 'a b' else 'is not' }}{% endfor %}",
        [{"role": "user", "content": "a b"}],
    ),
}


@pytest.mark.parametrize(("message", "case"), REFUSED.items())
def test_messages_that_a_template_refuses_are_one_error_that_names_the_row(
    tokenizer: Tokenizer, message: str, case: tuple[str, list[dict[str, Any]]]
) -> None:
    template, messages = case
    with pytest.raises(CorpusError, match="a.jsonl, line 1: column 'messages'.*" + message):
        render(tokenizer(template), messages)


def test_a_tokenizer_without_a_template_is_one_error_that_says_what_to_do(tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match=r"no chat template of its own: take the instruction-tuned model"):
        ChatTemplate(tokenizer(None))


def test_of_named_templates_that_called_default_is_taken(tokenizer: Tokenizer) -> None:
    found = said(render(tokenizer({"tool_use": "tools", "default": GEMMA_2}), CHAT[:1]))
    assert found == [("user", "the quick brown fox")]


def test_named_templates_without_a_default_are_one_error_with_their_names(tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match=r"none of the chat templates of \S+ \(rag, tool_use\) is called default"):
        ChatTemplate(tokenizer({"tool_use": CHATML, "rag": CHATML}))


def test_a_template_that_is_not_jinja_is_not_the_fault_of_a_row(tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match=r"^the chat template of \S+ is not Jinja .*: download"):
        render(tokenizer("{% for %}"), CHAT)


def test_a_template_says_whether_it_writes_bos(tokenizer: Tokenizer) -> None:
    assert ChatTemplate(tokenizer(LLAMA_3)).writes_bos
    assert not ChatTemplate(tokenizer(CHATML)).writes_bos


@pytest.mark.parametrize("at", range(9))
def test_content_is_found_whatever_it_is(tokenizer: Tokenizer, at: int, tmp_path: Path) -> None:
    texts = [
        "a",
        "user",
        "assistant\n",
        "<|im_end|>",
        "{{ messages }}",
        "model",
        "\N{FOX FACE}\u0301",
        "[/INST]",
        "</s>",
    ]
    messages = [{**message, "content": texts[(at + number) % 9]} for number, message in enumerate(CHAT)]
    for template in TEMPLATES.values():
        found = said(render(tokenizer(template), messages))
        assert found == [(message["role"], message["content"].strip()) for message in messages]
