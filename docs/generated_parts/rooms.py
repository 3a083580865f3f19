"""The rooms of the package, and the rules of imports between them."""

import ast
import tomllib
from pathlib import Path
from typing import Any

from generated_parts.markdown import table

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "extraction_assets"


def _first_sentence(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("``", "`")


def _layers(container: str) -> list[str]:
    """The layers inside a package, from top to bottom, as the contract of `make lint` has them: ``a | b`` in a line."""
    layers: list[str] = next(one for one in _contracts() if one.get("containers") == [container])["layers"]
    return layers


def _contracts() -> list[dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return contracts


def _rooms(folder: Path, container: str, prefix: str) -> str:
    """Every package and module of a folder in the order of its layers, with the first sentence of its docstring."""
    order = [room for layer in _layers(container) for room in layer.split(" | ")]
    found = [path for path in folder.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"]
    rooms = sorted(
        (path for path in found if path.name != "__init__.py"),
        key=lambda path: (order.index(path.stem), path.name),  # `make lint` refuses a room without a layer
    )
    return table(
        ["place", "what is in it"],
        [
            [f"`{prefix}{path.name}/`", _first_sentence(path / "__init__.py")]
            if path.is_dir()
            else [f"`{prefix}{path.name}`", _first_sentence(path)]
            for path in rooms
        ],
    )


def rooms() -> str:
    """The rooms of the package."""
    return _rooms(PACKAGE, "extraction_assets", "")


def engine_rooms() -> str:
    """The rooms of the engine."""
    return _rooms(PACKAGE / "engine", "extraction_assets.engine", "engine/")


def layers() -> str:
    """The layers of the package, from top to bottom."""
    return "".join(f"    {layer}\n" for layer in _layers("extraction_assets"))


def contracts() -> str:
    """The other rules of imports that `make lint` holds."""
    return "".join(f"- {one['name']}.\n" for one in _contracts() if one.get("containers") != ["extraction_assets"])
