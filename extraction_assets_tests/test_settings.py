"""What a corpus source means, seen from the folder of the YAML file."""

from pathlib import Path

import pytest

from extraction_assets.settings import STANDARD_LIBRARY, is_hub_id
from extraction_assets_tests.tiny import make_settings


def located(tiny_folder: Path, folder: Path, source: str) -> str:
    settings = make_settings(tiny_folder, corpus={"source": source})
    return settings.with_paths_from(folder).corpus.source


@pytest.mark.parametrize("source", ["texts", "data/*.parquet", "./data/texts", "../data", "data/a.jsonl", "a/b/c"])
def test_a_path_is_relative_to_the_yaml_file(tiny_folder: Path, tmp_path: Path, source: str) -> None:
    assert located(tiny_folder, tmp_path, source) == str((tmp_path / source).absolute())


@pytest.mark.parametrize("source", ["NeelNanda/pile-10k", "monology/pile-uncopyrighted", STANDARD_LIBRARY])
def test_a_hub_id_stays_one(tiny_folder: Path, tmp_path: Path, source: str) -> None:
    assert located(tiny_folder, tmp_path, source) == source


def test_a_folder_that_is_there_is_no_hub_id(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "texts").mkdir(parents=True)
    assert located(tiny_folder, tmp_path, "data/texts") == str(tmp_path / "data" / "texts")
    assert not is_hub_id("data/texts", tmp_path)
    assert is_hub_id("data/texts", tmp_path / "data")
