"""No module of the package imports itself by way of others: `make lint` looks at siblings, this at packages too."""

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


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
