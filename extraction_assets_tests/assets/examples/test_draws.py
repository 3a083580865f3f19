"""Draws of all chunks: those of brute force on the stored features, and none where a chunk has none."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from extraction_assets.assets.examples.chunk_tables import merge_chunks
from extraction_assets.assets.examples.drawn import ExpectedDraws, MergedDraws, draws_of
from extraction_assets.assets.examples.merging import Merged
from extraction_assets.engine.selection.shards import shard_threads
from extraction_assets.engine.shapes import DrawRules
from extraction_assets.stores.chunk_files import read_sampled, read_table, write_table
from extraction_assets_tests import draws_oracle
from extraction_assets_tests.brute_force import StoredFeatures
from extraction_assets_tests.engine.build import plain_draws
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import NUM_FEATURES, make_settings

SAE = "relu"
RULES = DrawRules(draw_seed=5, interval_examples=2, random_examples=4, sample_one_in=3)


@pytest.fixture(scope="module")
def computed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All chunks are there and no merge. Not to be changed."""
    settings = make_settings(tiny_folder, **RULES._asdict())
    project = Project(settings, tmp_path_factory.mktemp("computed") / "home")
    project.corpus()
    project.chunks(0, len(settings.chunks) - 1)
    return project


@pytest.fixture
def chunked(computed: Project, home: Path) -> Project:
    """The same in this test's own home."""
    shutil.copytree(computed.home, home, ignore=shutil.ignore_patterns("dagster"))
    return Project(computed.settings, home)


def merged_draws(project: Project) -> Merged:
    return merge_chunks(project.plan, SAE, logging.getLogger(__name__))


def stored_features(project: Project) -> StoredFeatures:
    """What the chunks hold, and which positions count."""
    counted = np.concatenate([project.plan.samples(chunk).counted.numpy() for chunk in project.settings.chunks])
    return StoredFeatures(project.plan.store.asset_folder(project.settings.name, "sae_features", SAE), counted)


def test_merged_draws_are_those_of_brute_force_on_the_stored_features(computed: Project) -> None:
    stored, settings = stored_features(computed), computed.settings
    sizes = {"seed": 5, "per_interval": 2, "of_all": 4}
    right = draws_oracle.drawn(stored.dense(), stored.counted, first_sample=settings.start_sample, **sizes)
    merged = merged_draws(computed)
    assert merged.draws is not None
    assert plain_draws(merged.draws) == right
    assert {feature: one.draws for feature, one in merged.expected.items()} == {
        feature: draws_of(merged.draws, feature) for feature in merged.expected
    }


def test_populations_of_intervals_add_up_to_the_samples(computed: Project) -> None:
    statistics = merged_draws(computed).statistics
    assert statistics.interval_samples is not None
    assert statistics.interval_samples.sum(1).tolist() == statistics.sample_count.tolist()


def test_sampled_firings_are_those_of_the_stored_features(computed: Project) -> None:
    dense, seen = stored_features(computed).dense(), 0
    for chunk in computed.settings.chunks:
        sampled = read_sampled(computed.plan.chunk_path("top_k_table", chunk, SAE))
        assert sampled is not None
        for number, sample in enumerate(sampled.sample_index.tolist()):
            rows = dense[sample - computed.settings.start_sample]
            pointers = sampled.rows.row_pointers[number * len(rows) : (number + 1) * len(rows) + 1]
            assert pointers.diff().tolist() == (rows > 0).sum(1).tolist()
            values = sampled.rows.values[int(pointers[0]) : int(pointers[-1])]
            assert values.tolist() == rows[rows > 0].tolist()
            seen += 1
    assert seen == sum(draws_oracle.is_sampled(5, sample, 3) for sample in range(computed.settings.evaluation_samples))
    assert seen


def test_a_chunk_of_an_earlier_version_leaves_no_draws_of_a_part(chunked: Project) -> None:
    chunk = chunked.settings.chunks[1]
    path = chunked.plan.chunk_path("top_k_table", chunk, SAE)
    file = read_table(path, chunked.plan.table_fingerprint(chunk, SAE))
    record = {name: value for name, value in file.record.items() if name not in ("draws", "sampled")}
    write_table(path, file.table, file.statistics._replace(interval_samples=None), record)
    merged = merged_draws(chunked)
    assert merged.draws is None
    assert merged.statistics.interval_samples is None
    assert {one.draws for one in merged.expected.values()} == {None}
    assert read_sampled(path) is None


@pytest.mark.parametrize("first", [True, False])
def test_draws_of_a_part_are_none_whichever_chunk_has_none(first: bool, chunked: Project) -> None:
    chunk = chunked.settings.chunks[0]
    draws = read_table(
        chunked.plan.chunk_path("top_k_table", chunk, SAE), chunked.plan.table_fingerprint(chunk, SAE)
    ).draws
    assert draws is not None
    with shard_threads(2) as pool:
        merged, expected = MergedDraws(range(NUM_FEATURES), RULES, 2, pool), ExpectedDraws(RULES)
        for one in (None, draws) if first else (draws, None):
            merged.add(one)
            expected.add(one, [0])
    assert merged.build() is None
    assert expected.of(0) is None
