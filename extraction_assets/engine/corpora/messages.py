"""Conversations from columns: lists of messages with a role and a text, checked."""

from typing import Any

from extraction_assets.engine.corpora import decoding
from extraction_assets.engine.corpora.documents import Conversation, CorpusError
from extraction_assets.engine.corpora.shown_values import check_unicode, shown

_SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
"""Roles of ShareGPT -> those of chat templates; its other ones have the same name."""

CHAT_COLUMNS = ("messages", "conversations", "conversation")
"""What data sets call a column of chats."""

SPOKEN = ("reasoning_content", "reasoning", "thinking", "content", "tool_calls")
"""The fields of a message that hold what is said."""


def conversation(value: Any, column: str, where: str) -> Conversation:
    """The messages of one row, each a dict with ``role`` and ``content``; None fields are left out.

    ``content`` is text or a list of text parts; it may be absent where a message holds a tool call or reasoning.
    ShareGPT's ``from`` and ``value`` become ``role`` and ``content``. Raises CorpusError, which names the message.
    """
    where = f"{where}: column {column!r}"
    if not isinstance(value, list):
        example = '[{"role": "user", "content": "…"}, …]'
        raise CorpusError(f"{where} holds {shown(value)}, not a list of messages such as {example}")
    if not value:
        raise CorpusError(f"{where} holds no message: leave the row out, or give it one")
    count = len(value)
    messages = [_message(one, f"{where}, message {number} of {count}") for number, one in enumerate(value, start=1)]
    found = Conversation(messages, where)
    if sum(map(len, found.texts)) > decoding.MAX_DOCUMENT_BYTES:
        raise CorpusError(f"{where} {decoding.too_long('it')}")
    return found


def _message(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorpusError(f"{where} is {shown(value)}, not an object with role and content")
    repeated = getattr(value, "repeated", None)
    if repeated:
        raise CorpusError(f"{where} has the key {min(repeated)!r} twice")
    message = {key: field for key, field in value.items() if field is not None}
    if "role" not in message and "from" in message:
        message = _of_sharegpt(message)
    role = message.get("role")
    if not isinstance(role, str) or not role.strip():
        raise CorpusError(f"{where} has the role {shown(value.get('role'))}: give it one, such as user or assistant")
    check_unicode(role, where)
    if "content" in message:
        message["content"] = _content(message["content"], where)
    elif not any(message.get(field) for field in SPOKEN):
        raise CorpusError(f"{where} ({role}) has no content: it holds {', '.join(map(repr, message))} alone")
    return message


def _of_sharegpt(message: dict[str, Any]) -> dict[str, Any]:
    role = message.pop("from")
    renamed = {"role": _SHAREGPT.get(role, role) if isinstance(role, str) else role, **message}
    if "value" in renamed:
        renamed["content"] = renamed.pop("value")
    return renamed


def _content(value: Any, where: str) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return check_unicode(value, where)
    if not isinstance(value, list):
        raise CorpusError(f"{where} has the content {shown(value)}, which is neither text nor a list of text parts")
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(part.get("text"), str):
            raise CorpusError(f"{where} has a part of its content that is {shown(kind)}: text parts alone are read")
        check_unicode(part["text"], where)
    return [{key: field for key, field in part.items() if field is not None} for part in value]
