"""The preview of features: Markdown that renders as meant."""

import pytest

from extraction_assets.database.queries.examples import Example
from extraction_assets.engine.corpora.message_spans import MessageSpan
from extraction_assets.execution.preview import code, context_markdown


def _example(tokens: list[str], *positions: int) -> Example:
    return Example(0, 7, 2.5, tokens[positions[0]], "a.txt", 0, tokens, list(positions), [2.5] * len(positions))


def test_the_strongest_token_is_bold_and_its_spaces_are_not() -> None:
    assert context_markdown(_example(["to", " link", " it"], 1), 5) == "to **link** it"


def test_a_token_of_spaces_is_shown() -> None:
    assert context_markdown(_example(["x", "    ", "y"], 1), 5) == "x**␣**y"


def test_signs_of_markdown_and_line_breaks_stay_inside_the_cell() -> None:
    assert context_markdown(_example(["a|b", "*", "\n"], 1), 5) == "a\\|b**\\***⏎"


def test_html_entities_and_controls_are_text() -> None:
    shown = context_markdown(_example(["<img src=x>", "&lt;", "![a](b)", "\x1b\u202e"], 1), 5)
    assert shown == "\\<img src=x\\>**\\&lt;**!\\[a\\](b)\\x1b\\u202e".replace("\\x1b\\u", "\\\\x1b\\\\u")


@pytest.mark.parametrize(
    ("token", "markdown"),
    [
        ("word", "`word`"),
        ("_a*b", "`_a*b`"),
        (" space", "`  space `"),
        ("  ", "`␣␣`"),
        ("`", "`` ` ``"),
        ("a``b", "```a``b```"),
        ("a|b", "`a\\|b`"),
        ("\\|", "`\\\\\\|`"),
        ("\n\x1b", "`⏎\\x1b`"),
        ("\n", "`⏎`"),
        ("", "`  `"),
    ],
)
def test_a_token_as_code_does_not_leave_it(token: str, markdown: str) -> None:
    assert code(token) == markdown


def test_the_role_stands_where_a_message_begins() -> None:
    example = _example(["<s>", "hi", "\n", "a"], 1)._replace(
        messages=(MessageSpan("user", 1, 2), MessageSpan("a*b", 3, 4))
    )
    assert context_markdown(example, 1) == "\\<s\\>«user»**hi**⏎«a\\*b»a"


def test_as_many_of_the_strongest_positions_as_asked_for_are_bold() -> None:
    example = _example(["a", " b", " c", " d"], 3, 1, 2)
    assert context_markdown(example, 1) == "a b c **d**"
    assert context_markdown(example, 2) == "a **b** c **d**"
