"""What a corpus source means, seen from the folder of the YAML file."""

from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.component import build_definitions
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.execution.keys import SETTINGS_METADATA
from extraction_assets.settings import STANDARD_LIBRARY, ExtractionSettings, is_hub_id
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


def test_a_pattern_in_a_folder_with_wildcards_in_its_name_means_the_files_there(tmp_path: Path) -> None:
    folder = tmp_path / "project [v1]"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    settings = make_settings(tmp_path / "tiny", corpus={"source": "./*.txt"})
    assert list(find_source(settings.with_paths_from(folder).corpus).documents()) == [("a.txt", "text")]


# Paths that a module of definitions gives without a YAML file


@pytest.mark.parametrize("source", ["texts", "./texts", "../texts", "texts/*.txt", "a/b/c"])
def test_a_relative_corpus_is_refused_where_nothing_says_what_it_counts_from(tiny_folder: Path, source: str) -> None:
    settings = make_settings(tiny_folder, corpus={"source": source})
    with pytest.raises(
        ValueError, match=r"corpus\.source is .*, which is another one in every working directory: give"
    ):
        build_definitions(settings)


def test_a_relative_checkpoint_is_refused_too(tiny_folder: Path) -> None:
    for change in ({"language_model": {"path": "./model"}}, {"saes": {"a": {"path": "../sae", "hook": "layers.0"}}}):
        with pytest.raises(ValueError, match=r"\.path is '\.\.?/.*', which is another one in every working directory"):
            build_definitions(make_settings(tiny_folder, **change))


def test_a_folder_says_what_paths_count_from(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = make_settings(tiny_folder, corpus={"source": "texts"})
    corpus, *_ = build_definitions(settings, tiny_folder).assets or []
    assert isinstance(corpus, dg.AssetsDefinition)
    (spec,) = corpus.specs
    declared = ExtractionSettings.model_validate(spec.metadata[SETTINGS_METADATA].value)
    assert declared.corpus.source == str(tiny_folder / "texts")


def test_a_path_in_the_users_home_is_a_full_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("text")
    settings = make_settings(tiny_folder, corpus={"source": "~/*.txt"})
    build_definitions(settings)
    assert list(find_source(settings.corpus).documents()) == [("a.txt", "text")]
