"""docs/notebook.ipynb: its code runs as it stands, and what it shows is small."""

import json
from typing import Any

import execute_notebook
import pytest


@pytest.fixture
def notebook() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(execute_notebook.NOTEBOOK.read_text("utf-8"))
    return found


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_notebook_runs(notebook: dict[str, Any]) -> None:
    shown = [bool(cell["outputs"]) for cell in code_cells(notebook)]
    execute_notebook.execute(notebook)
    assert [bool(cell["outputs"]) for cell in code_cells(notebook)] == shown
    page = next("".join(output["data"]["text/html"]) for output in _results(notebook) if "ol class" in str(output))
    assert page.count("<li>") == 6


def _results(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return [output for output in outputs if output["output_type"] == "execute_result"]


def test_its_cells_were_run_in_their_order(notebook: dict[str, Any]) -> None:
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == [*range(1, len(counts) + 1)]


def test_its_outputs_are_small_and_name_no_place_of_a_machine(notebook: dict[str, Any]) -> None:
    text = execute_notebook.NOTEBOOK.read_text("utf-8")
    assert len(text) < 60_000
    assert not [place for place in ("/tmp", "/home", "/root", "/work") if place in text]
