"""No module of the package imports itself by way of others: `make lint` looks at siblings, this at packages too.
Tests can be imported without the packages that only extras install."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

OF_EXTRAS = {"dagster_postgres", "datasets", "psycopg2", "sae_lens", "triton"}


def _order(graph: grimp.ImportGraph) -> None:
    """CycleError where modules import each other in a circle."""
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


@pytest.fixture
def graph() -> grimp.ImportGraph:
    """Every import of the package, those for types alone and those inside functions included."""
    return grimp.build_graph("extraction_assets", exclude_type_checking_imports=False, cache_dir=None)


def test_no_modules_import_each_other(graph: grimp.ImportGraph) -> None:
    _order(graph)


def test_a_circle_through_a_package_is_found(graph: grimp.ImportGraph) -> None:
    graph.add_import(importer="extraction_assets.engine.selection.merge", imported="extraction_assets.engine")
    with pytest.raises(CycleError, match=r"extraction_assets\.engine"):
        _order(graph)


def _imported_at_once(source: str) -> set[str]:
    """Packages that a module imports at its top level."""
    found = set[str]()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found


def test_no_test_imports_a_package_of_an_extra_at_once() -> None:
    """Where it is used, ``pytest.importorskip`` skips what needs it."""
    files = Path(__file__).parent.rglob("*.py")
    found = {file.name: _imported_at_once(file.read_text("utf-8")) & OF_EXTRAS for file in files}
    assert {name: packages for name, packages in found.items() if packages} == {}
