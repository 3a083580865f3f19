"""The default folder for files of a Dagster project: inside the project.

A process learns its project from what it loads: an extraction's YAML file lies in one, and so does the module that
binds ``default_resources()``. Commands learn it from ``--module`` before anything is loaded, and come to the same one.
"""

import re
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

from extraction_assets.host.regular_files import read_text

HOME = ".extraction"

_PACKAGE = Path(__file__).parents[1]
_NAME = re.compile(r"^\s+name:\s*[\"']?(\w+)", re.MULTILINE)

_known: list[Path] = []
"""The project of this process, once it is known: the first that was named."""


def use_project_of(path: Path) -> None:
    """Notes the project that a file or folder belongs to as that of this process; the first one stays."""
    root = project_root(path)
    if root is not None and not _known:
        _known.append(root)


def use_project_of_caller(depth: int) -> None:
    """Notes the project of the module that called: ``depth`` frames above this function."""
    file = sys._getframe(depth).f_globals.get("__file__")
    if file:
        use_project_of(Path(file))


def use_project_of_module(module: str) -> None:
    """Notes the project of a module that is not imported yet; nothing if it is not found."""
    _known.clear()
    try:
        spec = find_spec(module)
    except Exception:  # importing its package fails: the command that loads it says how
        return
    if spec is not None and spec.origin:
        use_project_of(Path(spec.origin))


def project_root(path: Path) -> Path | None:
    """The Dagster project (a folder marked by its pyproject.toml or dg.toml) with a package that holds ``path``.

    None for a module outside any project, and for a package that is installed into the environment.
    """
    path = path.absolute()
    for folder in path.parents:
        package = _root_module(folder)
        if package is not None:
            folders = [folder / package, folder / "src" / package]
            return folder if any(path.is_relative_to(one) for one in folders) else None
    return None


def default_home() -> Path:
    """``.extraction`` in the project of this process. Without one: in the checkout that this package runs from, or in
    the user's home where it is installed without one; there too where an earlier version of this package has put files
    of the project's extractions, and none lie in the project."""
    before = (_checkout() or Path.home()) / HOME
    if not _known or _known[0] == _checkout():
        return before
    home = _known[0] / HOME
    return before if not home.is_dir() and _holds_files_of(before, _known[0]) else home


def _checkout() -> Path | None:
    return _PACKAGE.parent if (_PACKAGE.parent / "workspace.yaml").is_file() else None


def _root_module(folder: Path) -> str | None:
    """The package of the Dagster project in a folder, as a path; None if the folder is no project."""
    for name, keys in (("dg.toml", ("project",)), ("pyproject.toml", ("tool", "dg", "project"))):
        try:
            found = tomllib.loads(read_text(folder / name))
        except (OSError, ValueError):
            continue
        for key in keys:
            found = found.get(key, {}) if isinstance(found, dict) else {}
        if isinstance(found, dict) and found.get("root_module"):
            return str(found["root_module"]).replace(".", "/")
    return None


def _holds_files_of(home: Path, project: Path) -> bool:
    """Whether a home has files of one of a project's extractions, by the names in its YAML files."""
    if not home.is_dir():
        return False
    package = _root_module(project) or ""
    for file in (file for root in (project / package, project / "src" / package) for file in root.rglob("defs.y*ml")):
        try:
            text = read_text(file)
        except (OSError, ValueError):
            continue
        if "extraction_assets.FeatureExtraction" in text:
            names = {file.parent.name, *_NAME.findall(text)}
            if any((home / name / "corpus.json").is_file() for name in names):
                return True
    return False
