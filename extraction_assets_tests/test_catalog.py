"""The table of assets is the one place that names them, and what follows from it follows for a new row too."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import extraction_assets
from extraction_assets import catalog
from extraction_assets.catalog import ASSETS, CORPUS, builders
from extraction_assets.settings import KeepSettings

PACKAGE = Path(extraction_assets.__file__).parent
DOCUMENTATION = [PACKAGE.parent / "README.md", *sorted((PACKAGE.parent / "docs").glob("*.md"))]
NAMES = [row.name for row in ASSETS if row.name != CORPUS]
"""``corpus`` is a group of settings, a field of files and a plain word too."""


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module that is no docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.lineno, node.value


def test_asset_names_stand_in_the_table_alone() -> None:
    elsewhere = {PACKAGE / "catalog.py", PACKAGE / "engine" / "chunk_pass" / "batching.py"}  # a parameter's name
    modules = [path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts and path not in elsewhere]
    named = re.compile(rf"\b({'|'.join(NAMES)})\b")
    found = [f"{path}:{line}: {text}" for path in modules for line, text in strings(path) if named.search(text)]
    assert found == []


def test_every_row_is_made_from_an_earlier_one() -> None:
    earlier: set[str | None] = {None}
    for row in ASSETS:
        assert row.upstream in earlier
        earlier.add(row.name)


def test_every_builder_is_there() -> None:
    for place in builders():
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(f"extraction_assets.assets.{module}"), function))


def test_keep_has_a_field_for_every_chunk_asset_and_may_drop_the_optional_ones() -> None:
    assert list(KeepSettings.model_fields) == [row.name for row in ASSETS if row.partitioned]
    for row in (row for row in ASSETS if row.partitioned):
        try:
            kept = KeepSettings.model_validate({row.name: False}).keeps(row.name)
        except ValueError:
            kept = True
        assert kept is not row.is_optional


def test_the_documentation_has_the_list_of_assets() -> None:
    assert any(catalog.assets_table() in path.read_text("utf-8") for path in DOCUMENTATION)
