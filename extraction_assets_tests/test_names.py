"""Names in the code are plain technical English."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for room in ("extraction_assets", "benchmarks", "docs") for path in (ROOT / room).rglob("*.py"))

ALONE = {"own"}
"""Words that say nothing as a whole name; ``own_files`` does."""

PARTS = {"anew", "asked", "lack", "lacking", "lacks", "tell", "telling", "tells", "told", "whose"}
"""Words that are odd in any name."""


def names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The names that code gives, with their lines; of attributes those that it sets, for it cannot choose others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0


def odd_names(source: str) -> list[str]:
    return [
        f"line {line}: {name}"
        for name, line in names(ast.parse(source))
        if name in ALONE or PARTS & set(name.lower().split("_"))
    ]


def test_the_code_has_files() -> None:
    assert len(FILES) > 200


def test_names_are_plain() -> None:
    found = {str(path.relative_to(ROOT)): odd_names(path.read_text("utf-8")) for path in FILES}
    assert {path: odd for path, odd in found.items() if odd} == {}


@pytest.mark.parametrize(
    "source",
    [
        "own = 1",
        "def count(own: int) -> int: ...",
        "sizes = [len(own) for own in parts]",
        "class Part(NamedTuple):\n    own: int",
        "self.own = 1",
        "if (own := find()): ...",
        "def _told_again(): ...",
        "FEWER_THAN_ASKED = 1",
        "with opened() as own: ...",
    ],
)
def test_an_odd_name_is_found(source: str) -> None:
    assert len(odd_names(source)) == 1


@pytest.mark.parametrize("source", ["position = file.tell()", "own_files = 1", "def multitask(): ..."])
def test_a_plain_name_is_not_found(source: str) -> None:
    assert odd_names(source) == []
