"""A few features with their strongest tokens in context, as Markdown."""

import sqlalchemy as sa

from extraction_assets.database.queries import Example, examples_of, find_feature, readable_features

CONTEXT_TOKENS = 8


def preview(connection: sa.Connection, extraction_id: int, top_positions: int, count: int = 5) -> str:
    """A table of features: strongest tokens, how often they fire, and their strongest example in context."""
    lines = ["| feature | fires in | strongest tokens | strongest example |", "| --- | --- | --- | --- |"]
    for index in readable_features(connection, extraction_id, count):
        feature = find_feature(connection, extraction_id, index)
        examples = examples_of(connection, extraction_id, index, limit=top_positions)
        tokens = ", ".join(f"`{_cell(token)}`" for token in dict.fromkeys(example.max_token for example in examples))
        share = f"{feature.activation_frequency:.1%} of samples"
        lines.append(f"| {index} | {share} | {tokens} | {context_markdown(examples[0])} |")
    return "\n".join(lines)


def context_markdown(example: Example) -> str:
    """The tokens around an example's strongest position, that one in bold."""
    before, token, after = context(example)
    word = token.strip() or "␣"  # Markdown takes ** beside a space for asterisks
    head, _, tail = token.partition(token.strip()) if token.strip() else ("", "", "")
    return f"{_cell(before + head)}**{_cell(word)}**{_cell(tail + after)}"


def context(example: Example, width: int = CONTEXT_TOKENS) -> tuple[str, str, str]:
    """Text before, at and after the strongest position of an example."""
    at = example.positions[0]
    before = "".join(example.tokens[max(0, at - width) : at])
    return before, example.tokens[at], "".join(example.tokens[at + 1 : at + 1 + width])


def _cell(text: str) -> str:
    """Text that stays inside one cell of a Markdown table."""
    escaped = text.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")
    return "".join(f"\\{ch}" if ch in "\\`*_|<>[]#" else ch for ch in escaped)
