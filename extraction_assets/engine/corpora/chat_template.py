"""Conversations -> the text that the tokenizer's own chat template makes of them, and where each message stands in it.

A template is a program: it trims, folds a system message into the first user turn, drops earlier reasoning, writes tool
calls. So nothing is looked up in its text. A conversation is rendered a second time with a mark, a private character
that its text does not have, at both ends of every text of a message; without the marks that is the first text again,
or the marks are put elsewhere. They say where each message has come to stand.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from extraction_assets.engine.corpora.boundary import reason
from extraction_assets.engine.corpora.documents import Conversation, CorpusError
from extraction_assets.engine.corpora.message_spans import MessageSpan
from extraction_assets.engine.corpora.messages import SPOKEN
from extraction_assets.engine.corpora.template_marks import Found, Marks, Run, runs

TODAY = datetime(2024, 7, 26)
"""What every template is given as today, so that the same messages give the same tokens on any day: the date that
Llama 3's template writes where it is given none."""

_DIRECTIVES = [*"aAbBcdHIjmMpSUwWxXyY", "-d", "-m", "-H", "-I", "-M", "-S", "e"]
_PINNED = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{one}', '{TODAY.strftime('%' + one)}')" for one in _DIRECTIVES)
    + " }}{%- endmacro %}\n"
)
"""Stands before a template that requests the date, in place of the function of this name that transformers gives it.
Jinja removes the line break after the macro."""

_ROLES = frozenset({"system", "developer", "user", "assistant", "model", "tool", "function", "ipython"})
_NAMES = frozenset({"type", "id"})
"""Fields inside a message's text that templates compare and do not write."""
_ELSEWHERE = (1 / 2, 1 / 4, 3 / 4, 0.1, 0.9)
"""Where in a text its one mark is put if marks at its ends change what the template does."""
_WORD = "ZebraCrossing"


class RenderedChat(NamedTuple):
    """What a template makes of a conversation."""

    text: str
    messages: list[MessageSpan]
    """The characters of each message's text, without white space at its ends. A message that the template
    takes apart has several spans, one that it leaves out or that is empty has none."""


class ChatTemplate:
    """The chat template of a tokenizer. Raises CorpusError if it has none."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._described = f"the chat template of {getattr(tokenizer, 'name_or_path', '') or 'the tokenizer'}"
        template = _template(tokenizer)
        self._template = _PINNED + template if "strftime_now" in template else template

    def render(self, conversation: Conversation) -> RenderedChat:
        """The text of a conversation, and its messages in the order of the text.

        Renders twice, more often only where a template looks at the ends of a message or drops them. Raises
        CorpusError, which names file, row and column, for messages that the template refuses, for one of an unknown
        role that it leaves out, and for one that cannot be found in the text.
        """
        messages = [self._as_taken(message) for message in conversation.messages]
        text = self._checked(messages, conversation.where)
        marks = Marks(text, conversation.where)
        marked = self._marked_spans(marks, messages, text, range(len(messages)), (0.0, 1.0)) or []
        seen = {number for number, _, _ in marked}
        for number, message in enumerate(messages):
            if number not in seen and _says_something(message):
                found = self._spans_of_one(marks, messages, text, number, conversation.where)
                if not found:
                    self._refuse_unknown_role(messages, number, conversation.where)
                marked += found
        return RenderedChat(text, _without_overlaps(messages, marked))

    def _checked(self, messages: list[dict[str, Any]], where: str) -> str:
        from jinja2 import TemplateSyntaxError

        try:
            text = self._rendered(messages)
            text.encode("utf-8")
        except TemplateSyntaxError as error:
            raise CorpusError(
                f"{self._described} is not Jinja ({reason(error)}): download the tokenizer's files again"
            ) from error
        except Exception as error:  # a template may raise anything
            roles = ", ".join(str(message["role"]) for message in messages[:8])
            raise CorpusError(
                f"{where}: {self._described} refuses the messages ({roles}): {reason(error)}: leave the row out, or "
                "change its messages to what the model was trained on"
            ) from error
        return text

    def _rendered(self, messages: list[dict[str, Any]]) -> str:
        text = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=False
        )
        if not isinstance(text, str):
            raise CorpusError(f"it gives {type(text).__name__}, not text")
        return text

    def _marked_spans(
        self,
        marks: Marks,
        messages: list[dict[str, Any]],
        text: str,
        chosen: Sequence[int],
        places: Sequence[float],
    ) -> list[tuple[int, int, int]] | None:
        """(message, start, stop) of the ``chosen`` messages, without white space at the ends; None if marks at these
        ``places`` change the text."""
        found = self._marked(marks, messages, text, dict.fromkeys(chosen, places))
        if found is None:
            return None
        spans = []
        for run, start, stop in self._with_ends(marks, messages, text, list(runs(found, text))):
            inside = text[start:stop]
            spans.append((run.message, stop - len(inside.lstrip()), start + len(inside.rstrip())))
        return spans

    def _marked(
        self,
        marks: Marks,
        messages: list[dict[str, Any]],
        text: str,
        places: Mapping[int, Sequence[float]],
    ) -> list[Found] | None:
        """The marks at ``places`` of messages, by number, that are found in the text; None if they change it."""
        marks.clear()
        marked = [
            _with_texts(message, marks.puts(number, places[number])) if number in places else message
            for number, message in enumerate(messages)
        ]
        try:
            found, plain = marks.read(self._rendered(marked))
        except Exception:  # what the template does not refuse without marks
            return None
        return found if plain == text else None

    def _with_ends(
        self, marks: Marks, messages: list[dict[str, Any]], text: str, found: list[Run]
    ) -> Iterator[tuple[Run, int, int]]:
        """Runs with their start and stop, where ends are not certain by more marks: the outermost of all at once, which
        is nearly always right, or one by one."""
        doubted = [end for run in found for end in (run.starts, run.stops) if len(end) > 1]
        places: dict[int, list[float]] = {}
        for (_, mark), *_ in doubted:
            places[mark.message] = sorted([*places.get(mark.message, []), mark.place])
        standing = (self._marked(marks, messages, text, places) if places else None) or []
        at_once = all(end[0] in standing for end in doubted)

        def stands(one: Found) -> bool:
            return one in (self._marked(marks, messages, text, {one[1].message: [one[1].place]}) or [])

        for run in found:
            start, stop = (
                end[0] if at_once or len(end) == 1 else next(filter(stands, end[:-1]), end[-1])
                for end in (run.starts, run.stops)
            )
            yield run, start[0], stop[0]

    def _spans_of_one(
        self, marks: Marks, messages: list[dict[str, Any]], text: str, number: int, where: str
    ) -> list[tuple[int, int, int]]:
        """The same of one message, with marks wherever the template does not look."""
        unseen = False
        for places in ((0.0, 1.0), *((place,) for place in _ELSEWHERE)):
            found = self._marked_spans(marks, messages, text, [number], places)
            if found:
                return found
            unseen = unseen or found is not None
        if unseen:
            return []
        raise CorpusError(
            f"{where}, message {number + 1} of {len(messages)} ({messages[number]['role']}): {self._described} changes "
            "it, so that it cannot be found in the text: leave the row out"
        )

    def _refuse_unknown_role(self, messages: list[dict[str, Any]], number: int, where: str) -> None:
        role = messages[number]["role"]
        if role not in _ROLES:
            raise CorpusError(
                f"{where}, message {number + 1} of {len(messages)}: {self._described} does not know the role {role!r} "
                "and leaves the message out: use user, assistant or system, or leave the row out"
            )

    def _as_taken(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message with its content as the template reads it: text, or text parts."""
        content = message.get("content")
        if isinstance(content, list) and not self._takes_parts:
            return {**message, "content": "\n".join(part["text"] for part in content)}
        if isinstance(content, str) and self._takes_parts and not self._takes_text:
            return {**message, "content": _parts(content)}
        return message

    @property
    def writes_bos(self) -> bool:
        """Whether its texts begin with the tokenizer's BOS token."""
        bos = self._tokenizer.bos_token
        return bos is not None and self._tried(_WORD if self._takes_text else _parts(_WORD)).startswith(bos)

    @cached_property
    def _takes_text(self) -> bool:
        return _WORD in self._tried(_WORD)

    @cached_property
    def _takes_parts(self) -> bool:
        found = self._tried(_parts(_WORD))
        return _WORD in found and not re.search(rf"""(['"])text\1: *(['"]){_WORD}\2""", found)

    def _tried(self, content: Any) -> str:
        try:
            return self._rendered([{"role": "user", "content": content}])
        except Exception:  # the messages of the corpus will say why
            return ""


def _template(tokenizer: Any) -> str:
    try:
        template = tokenizer.get_chat_template()
    except (AttributeError, ValueError) as error:
        where = getattr(tokenizer, "name_or_path", "") or "the language model"
        named = getattr(tokenizer, "chat_template", None)
        if isinstance(named, dict):
            names = ", ".join(sorted(named))
            raise CorpusError(
                f"the corpus holds chats (corpus.messages_column), but none of the chat templates of {where} ({names}) "
                "is called default: give that name to the one that is meant, in tokenizer_config.json"
            ) from error
        raise CorpusError(
            f"the corpus holds chats (corpus.messages_column), but the tokenizer of {where} has no chat template of "
            "its own: take the instruction-tuned model, or put its chat_template.jinja beside the tokenizer's files; "
            "or read a column of text, corpus.text_column"
        ) from error
    return str(template)


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _with_texts(message: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A message with every text of what it says changed; its role and names stay."""
    return {key: _changed(value, change) if key in SPOKEN else value for key, value in message.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(one, change) for one in value]
    if isinstance(value, dict):
        return {key: one if key in _NAMES else _changed(one, change) for key, one in value.items()}
    return value


def _says_something(message: dict[str, Any]) -> bool:
    found: list[str] = []
    _with_texts(message, lambda text: found.append(text) or text)  # type: ignore[func-returns-value]
    return any(text.strip() for text in found)


def _without_overlaps(messages: list[dict[str, Any]], found: list[tuple[int, int, int]]) -> list[MessageSpan]:
    """Spans by position, none of them empty; characters that two messages claim are of the first."""
    spans: list[MessageSpan] = []
    end = 0
    for number, start, stop in sorted(found, key=lambda one: one[1:]):
        start = max(start, end)
        if start < stop:
            spans.append(MessageSpan(str(messages[number]["role"]), start, stop))
            end = stop
    return spans
