"""Merged examples: exact rows, refusals, one transaction, samples shared by SAEs."""

import json
import re
import shutil
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import torch
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from extraction_assets.assets.examples import chunk_tables, merging
from extraction_assets.assets.examples import run as examples_module
from extraction_assets.assets.examples.checks import MATCH_TABLES
from extraction_assets.assets.examples.merging import merge_tables
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.statistics.registry import STATISTICS
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.stores.chunk_files import TableFile, read_table, write_table
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.brute_force import StoredFeatures, feature_differences, top_examples
from extraction_assets_tests.database.synthetic import NUM_SAMPLES, make_results
from extraction_assets_tests.project import Project
from extraction_assets_tests.statistics_oracle import ORACLE
from extraction_assets_tests.tiny import NUM_FEATURES, make_sae, make_settings

EXAMPLES = (
    "SELECT e.sae, a.neuron_index, a.rank, a.sample_index, a.max_activation, a.max_token, a.positions, a.activations "
    "FROM feature_activations a JOIN extractions e ON e.id = a.extraction_id ORDER BY 1, 2, 3"
)
FEATURES = (
    f"SELECT e.sae, f.neuron_index, {', '.join(f'f.{name}' for name in ORACLE)} FROM features f "
    "JOIN extractions e ON e.id = f.extraction_id ORDER BY 1, 2"
)
SAMPLES = "SELECT sample_index, document_id, first_token, token_ids, tokens FROM samples ORDER BY 1"


@pytest.fixture
def project(tiny_folder: Path, home: Path) -> Project:
    return Project(make_settings(tiny_folder), home)


@pytest.fixture(scope="module")
def done(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All done and merged, with the events of its runs. Not to be changed."""
    return Project(make_settings(tiny_folder), tmp_path_factory.mktemp("done") / "home").everything()


@pytest.fixture
def merged(done: Project, home: Path) -> Project:
    """All done and merged in this test's own home, and not yet any event."""
    shutil.copytree(done.home, home, ignore=shutil.ignore_patterns("dagster"))
    return Project(done.settings, home)


@pytest.fixture
def chunked(done: Project, home: Path) -> Project:
    """All chunks are there and no merge."""
    shutil.copytree(done.home, home, ignore=shutil.ignore_patterns("dagster", "results.sqlite*", "feature_report"))
    return Project(done.settings, home)


def float32(text: float) -> float:
    """The float32 whose shortest text was read as a double."""
    return float(np.float32(text))


@pytest.mark.parametrize("sae", ["relu", "topk"])
def test_rows_equal_a_brute_force_computation(done: Project, sae: str) -> None:
    arrays = done.plan.corpus.arrays
    counted = arrays.attention_mask & ~arrays.special_tokens_mask
    features = StoredFeatures(done.home / "tiny" / sae / "sae_features", counted)
    assert features.num_features == NUM_FEATURES
    for neuron in range(NUM_FEATURES):
        rows = done.rows(
            "SELECT max_activation, sample_index, positions, activations FROM feature_activations a "
            f"JOIN extractions e ON e.id = a.extraction_id WHERE sae = '{sae}' AND neuron_index = {neuron} "
            "ORDER BY rank"
        )
        stored = features.rows(neuron)
        expected = top_examples(*stored, top_k=5)
        as_read = [(float32(m), s, json.loads(p), [float32(one) for one in json.loads(a)]) for m, s, p, a in rows]
        assert as_read == expected
        names = ", ".join(f"f.{name}" for name in ORACLE)
        ((*values,),) = done.rows(
            f"SELECT {names} FROM features f JOIN extractions e ON e.id = f.extraction_id "
            f"WHERE sae = '{sae}' AND neuron_index = {neuron}"
        )
        row = dict(zip(ORACLE, values, strict=True))
        assert feature_differences(row, stored[1], counted) == []


def test_running_everything_twice_gives_identical_bytes_and_rows(done: Project, tmp_path: Path) -> None:
    again = Project(done.settings, tmp_path / "again").everything()
    ours, theirs = done.files(), again.files()
    for sae in done.settings.saes:  # the page for people says when it was made
        assert ours.pop(f"tiny/{sae}/feature_report/report.html")
        assert theirs.pop(f"tiny/{sae}/feature_report/report.html")
    assert theirs == ours
    for query in (EXAMPLES, FEATURES, SAMPLES):
        assert again.rows(query) == done.rows(query)


@pytest.mark.parametrize("chunk_size", [1, 5, 1000])
def test_the_chunk_size_changes_no_row(done: Project, tiny_folder: Path, tmp_path: Path, chunk_size: int) -> None:
    other = Project(make_settings(tiny_folder, chunk_size=chunk_size), tmp_path / "other").merged()
    for query in (EXAMPLES, FEATURES, SAMPLES):
        assert other.rows(query) == done.rows(query)


def test_missing_chunks_are_named(project: Project) -> None:
    project.corpus()
    project.chunks(0, 1)
    with pytest.raises(dg.Failure, match=r"1 of 3 chunks of tiny/relu cannot be merged .*000000000016: missing"):
        project.merge("relu")
    assert _check_status(project, "no_chunk_is_missing") == AssetCheckExecutionRecordStatus.FAILED


def _check_status(project: Project, name: str) -> AssetCheckExecutionRecordStatus:
    """What the UI shows of a check of the merge."""
    key = dg.AssetCheckKey(dg.AssetKey(["tiny", "relu", "feature_examples"]), name)
    return project.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0].status


def test_chunks_of_another_sae_are_refused_and_earlier_rows_stay(merged: Project, tmp_path: Path) -> None:
    before = merged.rows(EXAMPLES)
    values = merged.settings.model_dump()
    values["saes"]["relu"]["path"] = str(make_sae(tmp_path / "sae", seed=9))
    changed = Project(type(merged.settings).model_validate(values), merged.home)
    with pytest.raises(dg.Failure, match="3 made from other inputs or settings"):
        changed.merge("relu")
    assert merged.rows(EXAMPLES) == before


def test_a_chunk_without_its_checks_is_refused(chunked: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChunkStore, "record", lambda *_: {"checks": {}})
    with pytest.raises(dg.Failure, match="check vectorized_matches_legacy is absent"):
        chunked.merge("relu")


def test_a_failed_check_of_the_merge_leaves_the_old_rows(merged: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = merged.rows(EXAMPLES)
    failed = dg.AssetCheckResult(check_name=MATCH_TABLES, passed=False, description="made up")
    monkeypatch.setattr(examples_module, "compare_with_tables", lambda *_: failed)
    with pytest.raises(dg.Failure, match="nothing was changed: made up"):
        merged.merge("relu")
    assert _check_status(merged, MATCH_TABLES) == AssetCheckExecutionRecordStatus.FAILED
    assert merged.rows(EXAMPLES) == before


def test_a_wrong_load_is_noticed_before_the_commit(chunked: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = examples_module.merge_chunks

    def without_best(*args: object) -> merging.Merged:
        merged = merge(*args)  # type: ignore[arg-type]
        return merged._replace(table=merged.table._replace(sample_index=merged.table.sample_index.flip(0)))

    monkeypatch.setattr(examples_module, "merge_chunks", without_best)
    with pytest.raises(dg.Failure, match="differ from the chunk tables"):
        chunked.merge("relu")
    assert chunked.rows(EXAMPLES) == []


def test_a_table_with_samples_of_another_chunk_is_refused(chunked: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    read = chunk_tables.read_tables

    def first_twice(files: Iterable[tuple[Path, str]], *others: Any) -> Iterator[TableFile]:
        first, _second, *rest = files
        return read([first, first, *rest], *others)

    monkeypatch.setattr(chunk_tables, "read_tables", first_twice)
    with pytest.raises(dg.Failure, match="the table of chunk 000000000008 holds samples of other chunks"):
        chunked.merge("relu")
    assert chunked.rows(EXAMPLES) == []


def with_null(row: tuple[Any, ...], null: set[str]) -> tuple[Any, ...]:
    """A row of ``FEATURES`` with NULL in some columns."""
    names = ("sae", "neuron_index", *ORACLE)
    return tuple(None if name in null else value for name, value in zip(names, row, strict=True))


def test_a_chunk_of_an_earlier_version_leaves_what_was_added_later_null_until_it_is_computed_again(
    merged: Project,
) -> None:
    right = merged.rows(FEATURES)
    plan, chunk = merged.plan, merged.settings.chunks[1]
    path = plan.chunk_path("top_k_table", chunk, "relu")
    table, statistics, record, _ = read_table(path, plan.table_fingerprint(chunk, "relu"))
    later = [one for one in STATISTICS if one.added_later]
    write_table(path, table, statistics._replace(**{one.name: None for one in later}), record)
    merged.merge("relu")
    null = {column.name for one in later for column in one.columns}
    assert merged.rows(FEATURES) == [with_null(row, null) if row[0] == "relu" else row for row in right]
    merged.chunks(1, 1)
    merged.merge("relu")
    assert merged.rows(FEATURES) == right


@pytest.mark.parametrize("count", [4, 40])
def test_a_merge_keeps_no_table_that_it_was_given(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables alive at once, and so the memory, do not grow with their number."""
    monkeypatch.setattr(merging, "DeferredTopKHeap", partial(DeferredTopKHeap, buffer_examples=0))
    alive, most = weakref.WeakSet[torch.Tensor](), [0]

    def chunks() -> Iterator[TableFile]:
        for number in range(count):
            results = make_results("f", 1.0 + number, num_features=9, top_k=4)
            table = results.table._replace(sample_index=torch.arange(36) + 36 * number)
            alive.update([table.sample_index, results.statistics.sample_count])
            most[0] = max(most[0], len(alive))
            yield TableFile(table, results.statistics, {"numerics": {}})
            del results, table

    merged = merge_tables(chunks(), top_k=4)
    assert (merged.table.max_activation == count).all()
    assert merged.statistics.samples_seen == count * NUM_SAMPLES
    assert most[0] <= 6  # two tensors of each: the first (its statistics are the sum so far), the last, the new one


def named_by(project: Project) -> set[int]:
    """Samples of examples and of draws."""
    queries = (f"SELECT DISTINCT sample_index FROM {view}" for view in ("feature_activations", "feature_draws"))
    return {index for query in queries for (index,) in project.rows(query)}


def test_samples_hold_exactly_those_that_some_example_names(merged: Project, tiny_folder: Path) -> None:
    named = named_by(merged)
    assert {row[0] for row in merged.rows(SAMPLES)} == named
    few = make_settings(tiny_folder, top_k_examples=1, interval_examples=0, random_examples=1)
    fewer = Project(few, merged.home).merged()
    still_named = named_by(fewer)
    assert {row[0] for row in fewer.rows(SAMPLES)} == still_named < named


def test_tokens_line_up_with_ids_and_hold_no_padding(done: Project) -> None:
    lengths = done.plan.corpus.arrays.attention_mask.sum(axis=1)
    for index, _, _, ids, tokens in done.rows(SAMPLES):
        assert len(json.loads(ids)) == len(json.loads(tokens)) == lengths[index]


def test_more_samples_keep_the_corpus_id_and_other_text_gets_a_new_one(
    project: Project, tiny_folder: Path, tmp_path: Path
) -> None:
    fewer = Project(make_settings(tiny_folder, evaluation_samples=12), project.home).merged()
    (before,) = fewer.rows("SELECT DISTINCT corpus_id FROM extractions")
    project.merged()
    assert project.rows("SELECT DISTINCT corpus_id FROM extractions") == [before]
    assert project.rows("SELECT sample_count FROM corpora") == [(23,)]
    other_text = tmp_path / "texts"
    other_text.mkdir()
    (other_text / "only.txt").write_text("another text altogether. " * 300)
    corpus = {"source": str(other_text), "max_length": 16}
    changed = Project(make_settings(tiny_folder, corpus=corpus), project.home).merged()
    assert changed.rows("SELECT DISTINCT corpus_id FROM extractions") != [before]
    assert len(changed.rows("SELECT id FROM corpora")) == 1


def test_both_checks_of_the_merge_are_recorded(chunked: Project) -> None:
    evaluations = chunked.merge("relu").get_asset_check_evaluations()
    assert {e.check_name: e.passed for e in evaluations} == {
        "no_chunk_is_missing": True,
        "examples_match_chunk_tables": True,
    }


@pytest.mark.slow
def test_features_that_fire_below_the_bound_have_counts_and_no_examples(tiny_folder: Path, home: Path) -> None:
    project = Project(make_settings(tiny_folder, min_activation=1e30), home).everything()
    assert project.rows(EXAMPLES) == []
    assert project.rows("SELECT max(activation_count) FROM features") == [(23,)]


def test_metadata_shows_five_features_and_counts(done: Project) -> None:
    key = dg.AssetKey(["tiny", "topk", "feature_examples"])
    event = done.instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["preview"].value.count("\n") == 6  # heading, rule, five features
    assert metadata["samples"].value == 23
    assert metadata["features"].value == NUM_FEATURES
    assert metadata["numerics_records"].value == 1


def test_metadata_holds_two_pictures_of_the_same_numbers_as_the_rows(done: Project) -> None:
    event = done.instance.get_latest_materialization_event(dg.AssetKey(["tiny", "topk", "feature_examples"]))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    own = "JOIN extractions e ON e.id = extraction_id WHERE e.sae = 'topk'"
    ((never,),) = done.rows(f"SELECT count(*) FROM features f {own} AND f.token_count = 0")
    full = done.rows(f"SELECT neuron_index FROM feature_activations {own} GROUP BY 1 HAVING count(*) = 5")
    assert f"never: {never}%3C" in metadata["density"].value
    assert f"all 5: {len(full)}%3C" in metadata["examples_per_feature"].value


def test_the_report_is_shown_in_the_ui_and_its_page_holds_the_same_pictures(done: Project) -> None:
    event = done.instance.get_latest_materialization_event(dg.AssetKey(["tiny", "topk", "feature_report"]))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    top = str(metadata["top_of_report"].value)
    assert top.startswith("**tiny / topk**: 48 features at `layers.1`, 23 samples")
    assert top.count("data:image/svg+xml") == 2
    page = Path(str(metadata["path"].value)).read_text()
    assert re.findall(r"all 5: \d+", top) == re.findall(r"all 5: \d+", page)
    assert page.count("<svg ") == 3  # density against maximum too


def test_the_corpus_says_which_ids_are_special(done: Project) -> None:
    tokenizer = load_tokenizer(done.settings, done.plan.extraction.checkpoint)
    [(stored,)] = done.rows("SELECT special_ids FROM corpora")
    assert json.loads(stored) == sorted(set(tokenizer.all_special_ids)) != []


def test_a_merge_of_chunks_with_different_numerics_says_so(project: Project) -> None:
    project.corpus()
    project.chunks(0, 1)
    other = Project(project.settings, project.home, batch_size=4)
    other.chunks(2, 2)
    other.merge("relu")
    event = other.instance.get_latest_materialization_event(dg.AssetKey(["tiny", "relu", "feature_examples"]))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["numerics_records"].value == 2
