"""The standard library in an order that stays, without tests and installed packages."""

import hashlib
from pathlib import Path

from extraction_assets.engine.corpora.standard_library import path_hash, standard_library_files

KEPT = ["ast.py", "json/__init__.py", "json/decoder.py", "os.py"]
ORDERED = ["json/decoder.py", "json/__init__.py", "ast.py", "os.py"]
LEFT_OUT = [
    "test/test_os.py",
    "json/tests/test_decode.py",
    "idlelib/idle_test/htest.py",
    "lib2to3/pytree.py",
    "site-packages/numpy/core.py",
    "ensurepip/_bundled/pip.py",
    "config-3.11-x86_64-linux-gnu/python-config.py",
    "_sysconfigdata__linux_x86_64-linux-gnu.py",
    "json/__pycache__/decoder.py",
    "README.txt",
]


def make_library(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}")
    return root


def test_tests_packages_and_build_files_are_left_out(tmp_path: Path) -> None:
    root = make_library(tmp_path / "lib", KEPT + LEFT_OUT)
    (root / "latin.py").write_bytes(b"# \xe9")
    assert sorted(name for name, _ in standard_library_files(root)) == KEPT


def test_the_order_is_that_of_the_paths_hashes(tmp_path: Path) -> None:
    files = standard_library_files(make_library(tmp_path / "lib", KEPT))
    expected = sorted(KEPT, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert [name for name, _ in files] == expected == ORDERED
    assert [path.read_text() for _, path in files] == [f"# {name}" for name in expected]


def test_more_files_do_not_reorder_the_others(tmp_path: Path) -> None:
    few = [name for name, _ in standard_library_files(make_library(tmp_path / "few", KEPT))]
    more = make_library(tmp_path / "more", [*KEPT, *(f"module{i}.py" for i in range(20))])
    assert [name for name, _ in standard_library_files(more) if name in KEPT] == few


def test_the_running_library_has_many_modules_and_no_tests() -> None:
    names = [name for name, _ in standard_library_files()]
    assert len(names) > 400
    assert {"os.py", "ast.py"} < set(names)
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]
    assert names == sorted(names, key=path_hash)
