"""The preview of features: Markdown that renders as meant."""

from extraction_assets.assets.preview import context_markdown
from extraction_assets.database.queries import Example


def _example(tokens: list[str], at: int) -> Example:
    return Example(0, 7, 2.5, tokens[at], "a.txt", 0, tokens, [at], [2.5])


def test_the_strongest_token_is_bold_and_its_spaces_are_not() -> None:
    assert context_markdown(_example(["to", " link", " it"], 1)) == "to **link** it"


def test_a_token_of_spaces_is_shown() -> None:
    assert context_markdown(_example(["x", "    ", "y"], 1)) == "x**␣**y"


def test_signs_of_markdown_and_line_breaks_stay_inside_the_cell() -> None:
    assert context_markdown(_example(["a|b", "*", "\n"], 1)) == "a\\|b**\\***⏎"
