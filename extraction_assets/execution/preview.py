"""A few features with their strongest tokens in context, as Markdown."""

import re

import sqlalchemy as sa

from extraction_assets.database.queries.examples import Example, examples_of, find_feature
from extraction_assets.database.queries.words import readable_features
from extraction_assets.engine.corpora.message_spans import speakers
from extraction_assets.engine.corpora.visible_text import visible

CONTEXT_TOKENS = 8
PREVIEWED_EXAMPLES = 5
_MARKUP = frozenset("\\`*_|<>[]#&~")
"""Signs that Markdown may take for markup, HTML or entities."""


def preview(connection: sa.Connection, extraction_id: int, top_positions: int, count: int = 5) -> str:
    """A table of features: the share of samples in which they fire, their strongest tokens, and their strongest
    example in context, with its ``top_positions`` strongest firings in bold."""
    lines = ["| feature | samples | tokens | strongest example |", "| --- | --- | --- | --- |"]
    for index in readable_features(connection, extraction_id, count):
        share = f"{find_feature(connection, extraction_id, index).activation_frequency:.1%}"
        examples = examples_of(connection, extraction_id, index, limit=PREVIEWED_EXAMPLES)
        tokens = ", ".join(code(token) for token in dict.fromkeys(example.max_token for example in examples))
        lines.append(f"| {index} | {share} | {tokens} | {context_markdown(examples[0], top_positions)} |")
    return "\n".join(lines)


def context_markdown(example: Example, top_positions: int, width: int = CONTEXT_TOKENS) -> str:
    """The tokens around an example's strongest position, with its ``top_positions`` strongest firings in bold, and the
    role in «» where a message of a chat begins."""
    at, bold = example.positions[0], set(example.positions[:top_positions])
    first, stop = max(0, at - width), at + 1 + width
    roles = {position: escape(f"«{role}»") for position, role in speakers(example.messages, first, stop).items()}
    shown = enumerate(example.tokens[first:stop], first)
    return "".join(roles.get(at, "") + (_bold(token) if at in bold else escape(token)) for at, token in shown)


def code(text: str) -> str:
    """Text as code, also inside a table: between backticks, more of them than it has in a row itself."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    shown = visible(text) if text.strip() else visible(text).replace(" ", "␣")
    shown = re.sub(r"(\\*)\|", r"\1\1\\|", shown)  # a table takes this one escape inside code too
    pad = " " if shown[:1] in "` " or shown[-1:] in "` " else ""  # Markdown takes one space off at each side
    return f"{fence}{pad}{shown}{pad}{fence}"


def _bold(token: str) -> str:
    """Markdown takes ** beside a space for asterisks, so a token's own spaces stay outside."""
    word = token.strip()
    if not word:
        return "**␣**"
    before, _, after = token.partition(word)
    return f"{escape(before)}**{escape(word)}**{escape(after)}"


def escape(text: str) -> str:
    """Text that is only text inside a line or a table's cell of Markdown: no markup, HTML, entity or picture."""
    return "".join(f"\\{ch}" if ch in _MARKUP else ch for ch in visible(text))
