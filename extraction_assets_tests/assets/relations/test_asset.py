"""The relations of a small extraction: rows equal a count of every firing, and say of what they were counted."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from extraction_assets.database.connect import open_database
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.queries.texts import text_is_indexed
from extraction_assets.engine.selection.hashing import sample_hash, sample_keys
from extraction_assets.execution.keys import asset_key
from extraction_assets_tests.brute_force import StoredFeatures
from extraction_assets_tests.command import declare, succeed
from extraction_assets_tests.engine.relations import oracle
from extraction_assets_tests.engine.relations.build import Corpus
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import NUM_FEATURES, make_settings

ONE_IN = 2
OF_RELU = "JOIN extractions e ON e.id = r.extraction_id WHERE e.sae = 'relu'"


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All done and merged, SAE features stored, without relations. Not to be changed."""
    settings = make_settings(tiny_folder, sample_one_in=ONE_IN)
    return Project(settings, tmp_path_factory.mktemp("done") / "home").merged()


@pytest.fixture
def project(done: Project, home: Path) -> Project:
    """The same in this test's own home."""
    shutil.copytree(done.home, home, ignore=shutil.ignore_patterns("dagster"))
    return Project(done.settings, home)


def relate(project: Project) -> dict[str, Any]:
    """Materializes the relations of ``relu``; the metadata."""
    (event,) = project.execute([key_of(project)]).get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def key_of(project: Project) -> dg.AssetKey:
    return asset_key(project.settings, "feature_relations", "relu")


def corpus_of(project: Project, rows: list[int]) -> Corpus:
    """Some samples with the stored features of ``relu``."""
    arrays = project.plan.corpus.arrays
    counted = arrays.attention_mask & ~arrays.special_tokens_mask
    features = StoredFeatures(project.home / "tiny" / "relu" / "sae_features", counted)
    dense = features.dense()
    return Corpus(*(np.asarray(array)[rows] for array in (dense, arrays.token_ids, arrays.attention_mask, counted)))


def drop_features(project: Project) -> None:
    shutil.rmtree(project.home / "tiny" / "relu" / "sae_features")


def stored_tokens(project: Project, place: str) -> dict[int, list[tuple[Any, ...]]]:
    rows = project.rows(
        f"SELECT neuron_index, token_id, count, mean_activation, share FROM feature_tokens r {OF_RELU} "
        f"AND place = '{place}' ORDER BY neuron_index, rank"
    )
    found: dict[int, list[tuple[Any, ...]]] = {}
    for feature, *row in rows:
        found.setdefault(feature, []).append(tuple(row))
    return found


def stored_neighbours(project: Project) -> dict[int, list[Any]]:
    rows = project.rows(f"SELECT neuron_index, neighbours FROM feature_neighbours r {OF_RELU} ORDER BY 1")
    assert [feature for feature, _ in rows] == list(range(NUM_FEATURES))
    return {feature: json.loads(neighbours) for feature, neighbours in rows if neighbours != "[]"}


def scope_of(project: Project) -> list[tuple[Any, ...]]:
    return project.rows(f"SELECT scope, sample_one_in, r.sample_count, r.token_count FROM relations r {OF_RELU}")


def assert_rows_are_those_of(project: Project, corpus: Corpus) -> None:
    for place in ("firing", "next"):
        assert stored_tokens(project, place) == oracle.top_tokens(corpus, place, 20)
    expected = oracle.neighbours(corpus, 20)
    found = stored_neighbours(project)
    assert {feature: [row[:2] for row in rows] for feature, rows in found.items()} == {
        feature: [list(row[:2]) for row in rows] for feature, rows in expected.items()
    }
    for feature, rows in found.items():
        assert np.allclose([row[2:] for row in rows], [row[2:] for row in expected[feature]], rtol=1e-6, atol=1e-7)


def test_with_stored_features_they_are_counted_over_the_whole_corpus(project: Project) -> None:
    metadata = relate(project)
    corpus = corpus_of(project, list(range(23)))
    assert_rows_are_those_of(project, corpus)
    assert scope_of(project) == [("corpus", 1, 23, int(corpus.counted.sum()))]
    assert metadata["scope"] == "over the whole corpus"


def test_without_them_over_the_sampled_samples(project: Project) -> None:
    rows = [number for number in range(23) if sample_hash(sample_keys(0, number)) % ONE_IN == 0]
    assert 0 < len(rows) < 23
    corpus = corpus_of(project, rows)
    drop_features(project)
    assert relate(project)["scope"] == "over one sample in 2"
    assert_rows_are_those_of(project, corpus)
    assert scope_of(project) == [("sample", ONE_IN, len(rows), int(corpus.counted.sum()))]


def test_flags_of_the_whole_corpus_are_those_of_the_merge(project: Project) -> None:
    relate(project)
    flags = dict(project.rows(f"SELECT neuron_index, detail FROM feature_flags r {OF_RELU} AND flag = 'dense'"))
    shares = dict(project.rows("SELECT neuron_index, token_frequency FROM features r " + OF_RELU))
    assert {feature: json.loads(detail)["share"] for feature, detail in flags.items()} == {
        feature: share for feature, share in shares.items() if share > 0.1
    }


def test_a_token_is_stored_as_samples_show_it(project: Project) -> None:
    relate(project)
    ((token, token_id),) = project.rows(f"SELECT token, token_id FROM feature_tokens r {OF_RELU} LIMIT 1")
    samples = project.rows("SELECT tokens, token_ids FROM samples")
    shown = {i: t for tokens, ids in samples for t, i in zip(json.loads(tokens), json.loads(ids), strict=True)}
    assert shown[token_id] == token


@pytest.mark.slow
def test_chunks_without_sampled_features_are_said_and_earlier_rows_go(tiny_folder: Path, home: Path) -> None:
    project = Project(make_settings(tiny_folder, statistics="basic"), home).everything()
    relate(project)
    drop_features(project)
    project.merge("relu")
    assert "unchanged" in relate(project)
    project = Project(make_settings(tiny_folder, statistics="basic", top_k_examples=4), home)
    project.chunks(assets=[asset_key(project.settings, "top_k_table", "relu")])
    project.merge("relu")
    assert relate(project)["not_computed"].startswith("3 of 3 chunks were computed with `statistics: basic`")
    for table in ("relations", "feature_tokens", "feature_neighbours", "feature_flags"):
        assert project.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_merge_of_other_chunks_is_one_sentence(project: Project, tiny_folder: Path) -> None:
    other = Project(make_settings(tiny_folder, sample_one_in=ONE_IN, top_k_examples=4), project.home)
    with pytest.raises(dg.Failure, match=r"of other chunks than the current ones: materialize tiny/relu/feature_ex"):
        relate(other)


def test_damaged_features_are_set_aside_and_the_sampled_ones_are_used(project: Project) -> None:
    (path, *_) = sorted((project.home / "tiny" / "relu" / "sae_features").glob("*.safetensors"))
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(bytes(damaged))
    assert relate(project)["scope"] == "over one sample in 2"
    assert not path.exists()


def test_further_intervals_are_drawn_where_features_are_stored(project: Project, tiny_folder: Path) -> None:
    asked = make_settings(tiny_folder, sample_one_in=ONE_IN, quantile_intervals=2, maximum_intervals=10)
    assert relate(Project(asked, project.home))["further_intervals"] > 0
    rows = dict(project.rows(f"SELECT neuron_index, ranges FROM feature_ranges r {OF_RELU}"))
    counts = dict(project.rows(f"SELECT neuron_index, activation_count FROM features r {OF_RELU}"))
    assert {feature: 2 * count for feature, count in counts.items() if count} == {
        feature: sum(samples for _, _, _, samples, _ in json.loads(ranges)) for feature, ranges in rows.items()
    }
    for ranges in map(json.loads, rows.values()):
        for _, low, high, samples, drawn in ranges:
            assert len(drawn) == min(5, samples)
            for _, maximum, token, positions, activations, first, tokens in drawn:
                assert np.float32(low) <= np.float32(maximum) <= np.float32(high)
                assert tokens[positions[0] - first] == token
                assert activations[0] == maximum


def test_further_intervals_are_not_of_samples_alone(project: Project, tiny_folder: Path) -> None:
    drop_features(project)
    asked = make_settings(tiny_folder, sample_one_in=ONE_IN, quantile_intervals=2)
    assert relate(Project(asked, project.home))["further_intervals"] == "not computed: of samples alone"
    assert project.rows("SELECT count(*) FROM feature_ranges") == [(0,)]


def test_texts_of_samples_are_indexed_with_them(project: Project) -> None:
    engine = open_database(project.url)
    with engine.connect() as connection:
        assert not text_is_indexed(connection, 1)
    relate(project)
    with engine.connect() as connection:
        assert text_is_indexed(connection, find_extraction(connection, "tiny", "relu").id)
    engine.dispose()


def test_status_says_what_they_were_counted_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = declare(monkeypatch, project.settings)
    assert "relu/feature_relations       not computed yet" in succeed(module, "status", "tiny")
    relate(project)
    assert "UTC over the whole corpus\n" in succeed(module, "status", "tiny")


def test_of_samples_they_are_stale_once_all_features_are_stored(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = project.home / "tiny" / "relu" / "sae_features"
    features.rename(project.home / "away")
    relate(project)
    (project.home / "away").rename(features)
    status = succeed(declare(monkeypatch, project.settings), "status", "tiny")
    assert "UTC over one sample in 2, stale: the SAE features of the whole corpus are stored now\n" in status


def test_delete_removes_them(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    relate(project)
    succeed(declare(monkeypatch, project.settings), "delete", "tiny", "--yes")
    for table in ("relations", "feature_tokens", "feature_neighbours", "feature_flags"):
        assert project.rows(f"SELECT count(*) FROM {table}") == [(0,)]
