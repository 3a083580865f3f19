"""What a run of chunks finds before its first chunk, and what its checks say of every chunk."""

import shutil
import sqlite3
from contextlib import closing
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import torch
from safetensors.torch import load_file, save_file

from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.assets.chunks.checks import CHUNK_CHECKS, CHUNK_WARNINGS
from extraction_assets.database.connect import open_database
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets.execution import loaded_models
from extraction_assets.execution.keys import activations_key, sae_key
from extraction_assets.host.disk import free_bytes, nearest, readable_size
from extraction_assets.planning.disk_estimate import Sizes, disk_findings, estimate_database, estimate_files, listed
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import NUM_FEATURES, make_sae, make_settings


def _project(tiny_folder: Path, home: Path, **relu: Any) -> Project:
    saes = make_settings(tiny_folder).model_dump()["saes"]
    saes["relu"] |= relu
    project = Project(make_settings(tiny_folder, saes=saes), home)
    project.corpus()
    return project


def _refusal(project: Project, **options: Any) -> str:
    with pytest.raises(dg.Failure) as caught:
        project.chunks(**options)
    assert list(project.files("tiny/**/*")) == ["tiny/corpus.json"]
    return str(caught.value.description)


@pytest.mark.slow
def test_an_sae_that_explains_too_little_stops_the_run_with_numbers_and_what_was_tried(
    tiny_folder: Path, home: Path
) -> None:
    message = _refusal(_project(tiny_folder, home, minimum_variance_explained=0.5))
    assert message.startswith("SAE 'relu' at 'layers.0' explains -")
    assert "at least 0.5 is required (mean L0 18.0, mean norm of the activations 0." in message
    assert "No other layer, normalization, scale, centering" in message
    assert "lower saes.relu.minimum_variance_explained" in message


@pytest.mark.slow
def test_too_many_firing_features_stop_the_run_unless_the_bound_is_raised(tiny_folder: Path, home: Path) -> None:
    message = _refusal(_project(tiny_folder, home, maximum_l0=17))
    assert "has 18.0 of its 48 features firing on a token" in message
    assert "between 0 and 17 are expected" in message
    _project(tiny_folder, home, maximum_l0=19).chunks(0, 0)


def _bos_sae(tiny_folder: Path, folder: Path) -> Path:
    """An SAE all of whose living features look for what the BOS token puts into the stream."""
    model = load_language_model(local(tiny_folder / "model"), ["layers.0"])
    bos = torch.zeros(1, 1, dtype=torch.int64)
    direction = model.activations(bos, torch.ones_like(bos).bool())["layers.0"].flatten()
    make_sae(folder, apply_b_dec_to_input=False)
    weights = load_file(folder / "sae_weights.safetensors")
    weights |= {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    weights["W_enc"][:, :4] = direction[:, None]
    save_file(weights, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.slow
def test_features_that_fire_on_first_tokens_stop_the_run_unless_they_do_not_count(
    tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    path = _bos_sae(tiny_folder, tmp_path / "bos")

    def project(**corpus: Any) -> Project:
        values = make_settings(tiny_folder).model_dump()
        saes = {"bos": {**values["saes"]["relu"], "path": str(path)}}
        made = Project(make_settings(tiny_folder, saes=saes, corpus={**values["corpus"], **corpus}), home)
        made.corpus()
        return made

    message = _refusal(project(count_special_tokens=True))
    assert message.startswith("SAE 'bos' at 'layers.0': 100% of the features' strongest tokens are a sample's first or")
    assert "which are 6.2% of the positions (128 tokens of one batch)" in message
    assert "saes.bos.maximum_bos_share" in message
    project().chunks(0, 0)
    project(count_special_tokens=True, exclude_first_positions=1).chunks(0, 0)


@pytest.mark.slow
def test_a_batch_is_looked_at_once_a_run_and_changes_no_file(
    tiny_folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = _project(tiny_folder, home)
    result = project.chunks()
    lines = [entry.user_message for entry in project.instance.all_logs(result.run_id)]
    assert len([line for line in lines if line.startswith("SAE relu at layers.0: explains -")]) == 1
    monkeypatch.setattr(chunk_run, "examine_start", lambda *_: None)
    other = _project(tiny_folder, tmp_path / "other")
    other.chunks()
    assert other.files() == project.files()


@pytest.mark.slow
def test_stored_activations_are_looked_at_where_they_are_read(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _project(tiny_folder, home).chunks(assets=[activations_key(make_settings(tiny_folder))])
    strict = _project(tiny_folder, home, minimum_variance_explained=0.5)
    monkeypatch.setattr(loaded_models, "load_language_model", lambda *_a, **_o: pytest.fail("the model was loaded"))
    with pytest.raises(dg.Failure, match=r"SAE 'relu' at 'layers\.0' explains -"):
        strict.chunks(assets=[sae_key(strict.settings, "relu", "top_k_table")])


# ------------------------------------------------------------------------------------------------------------- the disk


@pytest.mark.slow
def test_what_will_be_written_is_logged_with_what_is_free(tiny_folder: Path, home: Path) -> None:
    project = _project(tiny_folder, home)

    def log_line(result: dg.ExecuteInProcessResult) -> str:
        (line,) = (
            entry.user_message
            for entry in project.instance.all_logs(result.run_id)
            if "to be written" in entry.user_message
        )
        return line

    first = log_line(project.chunks(0, 1))
    assert first.startswith("about ")
    assert f"to be written to {home}, " in first
    assert "model_activations 32.8 kB" in first  # 16 samples * 16 positions * 2 hooks * 16 wide * 4 bytes
    assert "relu/sae_features 38.8 kB" in first  # 256 positions * (8 + mean L0 17.97 * 8)
    last = log_line(project.chunks(1, 2))
    assert "model_activations 14.3 kB" in last, "of the second chunk nothing is to come"
    alone = log_line(project.chunks(assets=[sae_key(project.settings, "relu", "top_k_table")]))
    assert alone.endswith("free: nothing")


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_says_what_lowers_the_need(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = _project(tiny_folder, home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40_000))
    message = _refusal(project, assets=[activations_key(project.settings)])
    assert message.startswith(
        f"about 47.1 kB are to be written to {home}, where 40.0 kB are free: model_activations 47.1"
    )
    assert "keep: {model_activations: false}` and `run tiny --missing`" in message
    project.chunks(0, 0, assets=[activations_key(project.settings)])
    project.chunks(1, 2, assets=[activations_key(project.settings)])  # 30.7 kB, now that one chunk is there


def test_the_estimate_by_hand(tiny_folder: Path, home: Path) -> None:
    settings, store = make_settings(tiny_folder, top_k_examples=50), ChunkStore(home)
    sizes = Sizes({"layers.0": 16, "layers.1": 32}, {"relu": 100, "topk": 1000}, 2, {"topk": 1.5})
    to_come = {("model_activations", None): 10, ("sae_features", "topk"): 10, ("top_k_table", "topk"): 16}
    found = {one.name: one.size for one in estimate_files(settings, store, sizes, to_come)}
    assert found["model_activations"] == 10 * 16 * (16 + 32) * 2
    assert found["topk/sae_features"] == 10 * 16 * (8 + 1.5 * 8)
    # a chunk of 8 samples has at most 8 * 16 * 1.5 examples, fewer than 8 for each of 1,000 features, each drawn twice
    sampled = 16 * (8 + 1.5 * 8) / 16
    assert found["topk/top_k_table"] == pytest.approx(16 / 8 * (3 * 8 * 16 * 1.5 * 40 + 1000 * 200) + 16 * sampled)
    rows = {one.name: one.size for one in estimate_database(settings, sizes, to_come)}
    assert rows == {
        "topk/results": 1000 * (23 * 111 + 46 * 102 + 600),  # of the corpus's 23 samples
        "topk/feature_relations": 1000 * 3600,
        "topk/feature_directions": 1000 * 2100,
        "results": 23 * 16 * 24,
    }
    assert listed(estimate_database(settings, sizes, to_come)).startswith(
        "topk/results 7.8 MB, topk/feature_relations 3.6"
    )


def test_the_estimate_of_basic_statistics_by_hand(tiny_folder: Path, home: Path) -> None:
    settings = make_settings(tiny_folder, top_k_examples=50, statistics="basic")
    sizes, to_come = Sizes({}, {"topk": 1000}, 2, {"topk": 1.5}), {("top_k_table", "topk"): 16}
    (table,) = estimate_files(settings, ChunkStore(home), sizes, to_come)
    assert table.size == pytest.approx(16 / 8 * (8 * 16 * 1.5 * 40 + 1000 * 130))
    rows, *_ = estimate_database(settings, sizes, to_come)
    assert rows.size == 1000 * (23 * 111 + 600)


@pytest.mark.slow
def test_a_database_grows_by_what_was_estimated(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    for copy, path in product(range(10), (tiny_folder / "texts").iterdir()):
        shutil.copy(path, tmp_path / f"{copy}-{path.name}")
    corpus = {"source": str(tmp_path / "*.txt"), "max_length": 16}
    settings = make_settings(tiny_folder, corpus=corpus, evaluation_samples=400, chunk_size=200, top_k_examples=100)
    project = Project(settings, home)
    open_database(project.url).dispose()
    before = (home / "results.sqlite").stat().st_size
    project.merged()
    project.relations_and_directions()
    with closing(sqlite3.connect(home / "results.sqlite")) as connection:
        connection.execute("VACUUM")
    grown = (home / "results.sqlite").stat().st_size - before
    sizes = Sizes({}, dict.fromkeys(settings.saes, NUM_FEATURES))
    to_come = {("top_k_table", sae): 400 for sae in settings.saes}
    estimated = sum(one.size for one in estimate_database(settings, sizes, to_come))
    assert grown < estimated < 2.5 * grown  # half of these features fire, on few different tokens


def test_a_disk_with_just_enough_room_is_enough(tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = Sizes({"layers.0": 16, "layers.1": 16}, {})
    estimates = estimate_files(make_settings(tiny_folder), ChunkStore(home), sizes, {("model_activations", None): 23})
    (needed,) = (one.size for one in estimates)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(needed)))
    assert disk_findings(estimates, home, "tiny") == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(needed) - 1))
    assert len(disk_findings(estimates, home, "tiny")) == 1


def test_sizes_are_in_units_of_a_thousand_and_folders_need_not_exist(tmp_path: Path) -> None:
    assert [readable_size(size) for size in (0, 999, 1000, 12_345_678)] == ["0 bytes", "999 bytes", "1.0 kB", "12.3 MB"]
    assert nearest(tmp_path / "a" / "b") == tmp_path
    assert free_bytes(tmp_path / "a" / "b") > 0


# ------------------------------------------------------------------------------------------------- checks of each chunk


@pytest.mark.slow
def test_what_a_later_chunk_shows_is_a_warning_and_is_stored_and_merged(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_run, "examine_start", lambda *_: None)  # as if the first batch had been within the bounds
    project = _project(tiny_folder, home, maximum_l0=17)
    evaluations = project.chunks().get_asset_check_evaluations()
    failed = [one for one in evaluations if not one.passed]
    assert {(one.check_name, one.asset_key.path[1]) for one in failed} == {("sae_is_sparse", "relu")}
    assert len(failed) == 3
    assert all(one.severity == dg.AssetCheckSeverity.WARN and not one.blocking for one in failed)
    values = {name: one.value for name, one in failed[0].metadata.items()}
    assert values.pop("mean_l0") == pytest.approx(18, abs=0.1)
    assert values == {"maximum_l0": 17, "features_firing": 18, "dead_fraction": 1 - 18 / 48}
    assert project.plan.missing_chunks() == []
    assert project.merge("relu").success


@pytest.mark.slow
def test_the_share_of_first_tokens_is_reported_for_each_chunk(tiny_folder: Path, home: Path) -> None:
    result = _project(tiny_folder, home).chunks()
    evaluations = [one for one in result.get_asset_check_evaluations() if one.check_name == "bos_does_not_dominate"]
    assert len(evaluations) == 6
    for one in evaluations:
        assert one.metadata["bos_positions"].value == 0.0, "the BOS token stands first and does not count"
        assert one.metadata["bos_share"].value == 0.0
        assert one.passed


@pytest.mark.slow
def test_chunks_of_an_earlier_version_are_merged_and_their_checks_reported(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_record = ChunkStore.record

    def as_before(store: ChunkStore, path: Path) -> dict[str, Any]:
        record = read_record(store, path)
        return {**record, "checks": {name: record["checks"][name] for name in CHUNK_CHECKS}}

    project = _project(tiny_folder, home)
    project.chunks()
    monkeypatch.setattr(ChunkStore, "record", as_before)
    assert project.merge("relu").success
    table = sae_key(project.settings, "relu", "top_k_table")
    checks = project.checks_alone([dg.AssetCheckKey(table, name) for name in (*CHUNK_CHECKS, *CHUNK_WARNINGS)])
    assert {one.check_name for one in checks.get_asset_check_evaluations()} == set(CHUNK_CHECKS)
