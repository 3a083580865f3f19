"""Where compiled kernels are kept."""

import os
from pathlib import Path

import pytest

from extraction_assets.host.compile_cache import keep_compiled_kernels

VARIABLES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # restored afterwards, also where it was not set
        monkeypatch.delenv(name)


def test_compiled_kernels_are_kept_in_the_extraction_home(home: Path) -> None:
    keep_compiled_kernels()
    assert {os.environ[name] for name in VARIABLES} == {
        str(home / ".compiled" / "triton"),
        str(home / ".compiled" / "inductor"),
    }
    assert all(Path(os.environ[name]).is_dir() for name in VARIABLES)


def test_a_folder_that_the_user_has_chosen_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    keep_compiled_kernels()
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"
    assert not (home / ".compiled" / "triton").exists()


def test_where_nothing_can_be_written_the_libraries_keep_their_own_folders(home: Path) -> None:
    home.mkdir(parents=True)
    (home / ".compiled").write_text("in the way")
    keep_compiled_kernels()
    assert not set(VARIABLES) & set(os.environ)
