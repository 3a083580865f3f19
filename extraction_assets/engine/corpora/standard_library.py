"""The Python standard library as a corpus: text that every machine running this package has."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

EXCLUDED_FOLDERS = frozenset(
    {
        # Tests. lib2to3 is full of them, and Python 3.13 has dropped it.
        "test",
        "tests",
        "idle_test",
        "lib2to3",
        # Not part of the standard library, or not source.
        "site-packages",
        "dist-packages",
        "_bundled",
        "__pycache__",
    }
)


def standard_library_files(root: Path | None = None) -> list[tuple[str, Path]]:
    """Every Python source of the standard library, as (posix path relative to root, absolute path).

    ``root`` is the folder of a standard library, by default the running Python's. Left out are tests,
    installed packages, the wheels of ensurepip, and what describes one build (``config-*`` folders,
    ``_sysconfigdata*``), as well as files that are not UTF-8.

    The order mixes modules and stays: files are sorted by the SHA-256 of their relative path, so two files
    come in the same order under every Python that has both, and any first part of the list is a fair
    sample of the whole.
    """
    root = Path(sysconfig.get_path("stdlib") if root is None else root).resolve()
    files = [(path.relative_to(root).as_posix(), path) for path in _python_sources(root)]
    return sorted(files, key=lambda file: path_hash(file[0]))


def path_hash(relative_path: str) -> str:
    """SHA-256 of a relative posix path, in hex: it orders and divides files independently of their text."""
    return hashlib.sha256(relative_path.encode()).hexdigest()


def _python_sources(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        # In place: os.walk then never descends into them (site-packages can hold 100,000 files).
        subfolders[:] = [name for name in subfolders if not _is_excluded_folder(name)]
        for name in names:
            path = Path(folder, name)
            if path.suffix == ".py" and not name.startswith("_sysconfigdata") and _is_utf8(path):
                yield path


def _is_excluded_folder(name: str) -> bool:
    return name in EXCLUDED_FOLDERS or name.startswith("config-")


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
