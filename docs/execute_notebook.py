"""Runs the code of docs/notebook.ipynb and writes what it shows into it: ``make notebook``.

Cells run one after the other in one namespace, and the last expression of each is shown as text and, where it has it,
as HTML. No kernel and no package of Jupyter is needed for it.
"""

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent / "notebook.ipynb"

Cell = dict[str, Any]


def execute(notebook: dict[str, Any]) -> None:
    """Runs all code cells and puts their outputs in place of those that are there. Raises what a cell raises."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        cell["execution_count"] = number
        cell["outputs"] = list(_outputs("".join(cell["source"]), number, namespace))


def _outputs(source: str, number: int, namespace: dict[str, Any]) -> list[Cell]:
    """What a cell prints and shows."""
    printed, shown = io.StringIO(), None
    module = ast.parse(source, f"cell {number}")
    last = module.body.pop() if module.body and isinstance(module.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(module, f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
    outputs: list[Cell] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if shown is not None:
        data = {"text/plain": _lines(repr(shown))}
        if hasattr(shown, "_repr_html_"):
            data["text/html"] = _lines(shown._repr_html_())
        outputs.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Runs the notebook in place."""
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    execute(notebook)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size // 1000} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
