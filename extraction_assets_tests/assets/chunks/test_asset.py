"""Chunk assets: subsets, reuse of what is stored, events, checks, byte identity."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from extraction_assets.assets.chunks import checks as recorded_checks_module
from extraction_assets.assets.chunks import compute, loaded
from extraction_assets.assets.chunks import finish as chunk_writer
from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.assets.chunks.checks import CHUNK_CHECKS, CHUNK_WARNINGS, MATCHES_LEGACY, RECONSTRUCTS
from extraction_assets.engine.chunk_pass import gpu_pass, sae_pass
from extraction_assets.engine.chunk_pass.stage_clock import StageClock
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution.keys import REUSE_TAG, activations_key, sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_files import read_table
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_sae, make_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tiny_folder: Path, home: Path) -> Project:
    project = Project(make_settings(tiny_folder), home)
    project.corpus()
    return project


def _forbid(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    def called(*_args: Any, **_options: Any) -> None:
        raise AssertionError(f"{owner.__name__}.{name} was called")

    monkeypatch.setattr(owner, name, called)


def test_each_chunk_has_one_event_of_each_asset(project: Project) -> None:
    project.chunks()
    for key in project.chunk_assets:
        assert project.instance.get_materialized_partitions(key) == set(project.settings.chunk_keys)
        assert project.instance.fetch_materializations(key, limit=100).records.__len__() == 3


def test_a_selected_table_alone_writes_no_other_file(project: Project) -> None:
    project.chunks(assets=[sae_key(project.settings, "relu", "top_k_table")])
    folders = {Path(name).parent.as_posix() for name in project.files("tiny/**/*")}
    assert folders == {"tiny", "tiny/relu/top_k_table"}


def test_selected_activations_alone_run_no_sae(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    _forbid(monkeypatch, SAE, "encode_sparse")
    project.chunks(assets=[activations_key(project.settings)])
    assert {Path(name).parent.as_posix() for name in project.files("tiny/**/*")} == {"tiny", "tiny/model_activations"}


def test_a_new_k_costs_no_forward_pass_and_no_encode(
    project: Project, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.chunks()
    fewer = Project(make_settings(tiny_folder, top_k_examples=2), home)
    _forbid(monkeypatch, SAE, "encode_sparse")
    _forbid(monkeypatch, LanguageModel, "activations")
    fewer.chunks(assets=[sae_key(fewer.settings, "relu", "top_k_table")])
    assert fewer.plan.chunk_state("top_k_table", fewer.settings.chunk("000000000008"), "relu") == "done"


def test_a_new_sae_on_known_activations_costs_no_forward_pass(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.chunks(assets=[activations_key(project.settings)])
    monkeypatch.setattr(loaded, "load_language_model", lambda *_a, **_o: pytest.fail("the model was loaded"))
    project.chunks(assets=[sae_key(project.settings, "topk", "top_k_table")])
    assert project.plan.chunk_state("top_k_table", project.settings.chunk("000000000016"), "topk") == "done"


def test_tables_from_stored_files_equal_computed_ones(project: Project, tiny_folder: Path, tmp_path: Path) -> None:
    project.chunks()
    again = Project(project.settings, tmp_path / "other")
    again.corpus()
    again.chunks(assets=[activations_key(again.settings)])
    again.chunks(assets=[sae_key(again.settings, "relu", "sae_features")])
    again.chunks(assets=[sae_key(again.settings, "relu", "top_k_table")])
    for key in project.settings.chunk_keys:
        ours, theirs = (_table(p, key, "relu") for p in (project, again))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _table(project: Project, key: str, sae: str) -> Any:
    path = project.plan.chunk_path("top_k_table", project.settings.chunk(key), sae)
    return read_table(path, project.plan.table_fingerprint(project.settings.chunk(key), sae)).table


def test_a_crash_keeps_the_chunks_before_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def crash_at_third(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return gpu_pass.chunk_steps(*args, **options)

    monkeypatch.setattr(compute, "chunk_steps", crash_at_third)
    with pytest.raises(RuntimeError, match="power cut"):
        project.chunks()
    recorded = project.instance.get_materialized_partitions(sae_key(project.settings, "relu", "top_k_table"))
    assert recorded == {"000000000000", "000000000008"}
    assert project.plan.missing_chunks() == ["000000000016"]
    monkeypatch.undo()
    project.chunks(2, 2)
    assert Project.everything(project).plan.missing_chunks() == []


def test_a_chunk_is_recorded_while_the_next_one_computes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    table, seen = sae_key(project.settings, "relu", "top_k_table"), []

    def wait_for_the_writer(samples: Samples, *args: Any) -> Any:
        steps = gpu_pass.chunk_steps(samples, *args)
        yield next(steps)
        if samples.first_sample == 8:
            deadline = time.monotonic() + 60
            while project.plan.missing_chunks()[0] == "000000000000" and time.monotonic() < deadline:
                time.sleep(0.01)
            while not seen and time.monotonic() < deadline:
                yield 0
                seen.extend(project.instance.get_materialized_partitions(table))
        return (yield from steps)

    monkeypatch.setattr(compute, "chunk_steps", wait_for_the_writer)
    project.chunks()
    assert seen == ["000000000000"]


def test_a_retry_records_done_chunks_again_without_computing_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.chunks()
    _forbid(monkeypatch, chunk_run, "compute_chunk")
    (run,) = project.instance.get_runs(limit=1)
    project.instance.report_run_failed(run)
    tags = {"dagster/parent_run_id": run.run_id, "dagster/root_run_id": run.run_id}
    result = project.chunks(tags=tags)
    assert len(result.get_asset_materialization_events()) == 15
    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) == 24  # four checks for each of two SAEs and three chunks
    assert {one.check_name for one in evaluations if one.blocking} == set(CHUNK_CHECKS)
    assert {one.check_name for one in evaluations if not one.blocking} == set(CHUNK_WARNINGS)


def test_chunks_that_are_asked_for_anew_are_computed_anew(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.chunks()
    _forbid(monkeypatch, chunk_run, "compute_chunk")
    with pytest.raises(AssertionError, match="compute_chunk was called"):
        project.chunks()


def test_checks_are_recorded_for_each_chunk(project: Project) -> None:
    result = project.chunks()
    evaluations = result.get_asset_check_evaluations()
    assert {(e.partition, e.asset_key.path[1], e.check_name) for e in evaluations} == {
        (key, sae, name)
        for key in project.settings.chunk_keys
        for sae in project.settings.saes
        for name in (
            "vectorized_matches_legacy",
            "sae_reconstructs_activations",
            "sae_is_sparse",
            "bos_does_not_dominate",
        )
    }
    assert all(e.passed for e in evaluations)
    assert all(e.metadata["pairs_compared"].value > 0 for e in evaluations if "legacy" in e.check_name)


def _table_checks(project: Project, sae: str) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(sae_key(project.settings, sae, "top_k_table"), name) for name in CHUNK_CHECKS]


def test_checks_executed_alone_tell_again_what_every_stored_chunk_says(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.chunks(0, 1)
    _forbid(monkeypatch, chunk_run, "compute_chunk")
    result = project.checks_alone(_table_checks(project, "relu"))
    assert {(e.partition, e.check_name, e.passed) for e in result.get_asset_check_evaluations()} == {
        (key, name, True) for key in project.settings.chunk_keys[:2] for name in CHUNK_CHECKS
    }


def test_a_check_that_was_recorded_as_failed_fails_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.chunks(0, 0)
    record = {"checks": {MATCHES_LEGACY: False}, "variance_explained": 0.1}
    monkeypatch.setattr(recorded_checks_module, "read_record", lambda _path: record)
    with pytest.raises(dg.DagsterError, match=r"failed.*\n.*vectorized_matches_legacy"):
        project.checks_alone(_table_checks(project, "topk")[:1])


def test_one_check_executed_alone_on_one_partition_tells_of_that_one(project: Project) -> None:
    project.chunks()
    tags = {"dagster/partition": "000000000008"}
    (evaluation,) = project.checks_alone(_table_checks(project, "topk")[:1], tags).get_asset_check_evaluations()
    assert evaluation.partition == "000000000008"


def test_checks_executed_alone_before_any_chunk_is_stored_say_so(project: Project) -> None:
    with pytest.raises(dg.Failure, match=r"no chunk of tiny/relu/top_k_table is stored, so there is nothing to check"):
        project.checks_alone(_table_checks(project, "relu"))


def test_the_log_of_a_run_of_chunks_misses_no_output(project: Project) -> None:
    result = project.chunks()
    messages = [entry.user_message for entry in project.instance.all_logs(result.run_id)]
    assert any("Started execution" in message for message in messages)
    assert not [message for message in messages if "did not yield" in message]


def test_an_sae_that_explains_too_little_fails_the_chunk_and_stores_nothing(project: Project, tmp_path: Path) -> None:
    """A later chunk: what is wrong with the first one is found before any chunk."""
    result, name = project.chunks(), "sae_reconstructs_activations"
    of_topk = [e for e in result.get_asset_check_evaluations() if e.check_name == name and "topk" in e.asset_key.path]
    first, second, _ = (float(one.metadata["variance_explained"].value) for one in of_topk)
    assert first > second
    values = project.settings.model_dump()
    values["saes"]["topk"]["minimum_variance_explained"] = (first + second) / 2
    strict = Project(type(project.settings).model_validate(values), tmp_path / "strict")
    strict.corpus()
    with pytest.raises(dg.Failure, match=r"sae_reconstructs_activations failed for chunk 000000000008 of tiny/topk"):
        strict.chunks()
    assert strict.plan.missing_chunks() == ["000000000008", "000000000016"]
    assert not [path for path in strict.files("tiny/**/*") if "000000000008" in path]


def test_a_chunk_of_next_to_no_tokens_says_that_it_has_nothing_to_judge_by(tiny_folder: Path, tmp_path: Path) -> None:
    project = Project(_tokens(tiny_folder, tmp_path, [*range(5, 21)], [*range(30, 46)], [7]), tmp_path / "home")
    project.corpus()
    found = [e for e in project.chunks().get_asset_check_evaluations() if e.check_name == RECONSTRUCTS]
    assert {e.description for e in found if e.partition == "000000000002"} == {
        "nothing to judge by: 1 positions of the first samples count"
    }
    assert all(e.passed for e in found)


@pytest.mark.parametrize("last", [7, 0], ids=["one token", "no token that counts"])
def test_a_chunk_of_next_to_no_tokens_can_be_run_alone(tiny_folder: Path, tmp_path: Path, last: int) -> None:
    """As in a retry, or where chunks are run one by one."""
    project = Project(_tokens(tiny_folder, tmp_path, [*range(5, 21)], [*range(30, 46)], [last]), tmp_path / "home")
    project.corpus()
    assert project.chunks(0, 0).success
    assert project.chunks(1, 1).success
    assert project.plan.missing_chunks() == []


def test_a_chunk_whose_activations_do_not_vary_fails(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_pass.VarianceExplained, "value", lambda _: torch.tensor(float("nan")))
    monkeypatch.setattr(chunk_run, "examine_start", lambda *_: None)
    project = Project(_tokens(tiny_folder, tmp_path, *[[*range(5, 21)]] * 4), tmp_path / "home")
    project.corpus()
    with pytest.raises(dg.Failure, match="32 positions of the first samples count, and the activations do not vary"):
        project.chunks()


def _tokens(tiny_folder: Path, folder: Path, *documents: list[int]) -> ExtractionSettings:
    """An extraction of tokenized documents, one a sample, two in a chunk."""
    file = folder / "tokens.jsonl"
    file.write_text("".join(json.dumps({"ids": ids}) + "\n" for ids in documents))
    corpus = {"source": str(file), "max_length": 16, "token_column": "ids"}
    return make_settings(tiny_folder, corpus=corpus, evaluation_samples=len(documents), chunk_size=2)


def test_a_wrong_selection_fails_the_legacy_check(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    right = sae_pass.select_top_k

    def too_strong(*args: Any) -> Any:
        table = right(*args)
        return table._replace(max_activation=table.max_activation * 2)

    monkeypatch.setattr(sae_pass, "select_top_k", too_strong)
    with pytest.raises(dg.Failure, match="vectorized_matches_legacy failed"):
        project.chunks()


@pytest.mark.parametrize(
    "gpu",
    [
        {"vectorization_batch_size": 1},
        {"vectorization_batch_size": "32"},
        {"vectorization_batch_size": 64},
        {"vectorization_batch_size": 128},
        {"vectorization_batch_size": 256},
        {"vectorized": False},
    ],
    ids=str,
)
def test_files_are_byte_identical_whatever_the_engine_and_its_batch(
    project: Project, tmp_path: Path, gpu: dict[str, Any]
) -> None:
    project.chunks()
    other = Project(project.settings, tmp_path / "other", **gpu)
    other.corpus()
    other.chunks()
    assert other.files() == project.files()


def test_a_table_made_from_stored_files_keeps_their_numerics_record(project: Project, tiny_folder: Path) -> None:
    small = Project(project.settings, project.home, batch_size=4)
    small.chunks(assets=[activations_key(project.settings), sae_key(project.settings, "relu", "sae_features")])
    project.chunks(assets=[sae_key(project.settings, sae, "top_k_table") for sae in project.settings.saes])
    key = project.settings.chunk_keys[0]
    relu, topk = (
        read_table(
            project.plan.chunk_path("top_k_table", project.settings.chunk(key), sae),
            project.plan.table_fingerprint(project.settings.chunk(key), sae),
        ).record
        for sae in ("relu", "topk")
    )
    assert relu["numerics"]["batch_size"] == 4  # its features were read
    assert topk["numerics"]["activations"]["batch_size"] == 4  # its activations were read
    assert topk["numerics"]["batch_size"] == 128


def test_an_sae_that_is_not_asked_for_can_be_broken(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    values = make_settings(tiny_folder).model_dump()["saes"]
    values["topk"]["path"] = str(make_sae(tmp_path / "other", "topk"))
    project = Project(make_settings(tiny_folder, saes=values), home)
    project.corpus()
    (tmp_path / "other" / "sae_weights.safetensors").write_bytes(b"cut")
    project.chunks(assets=[sae_key(project.settings, "relu", "top_k_table")])
    assert project.plan.chunk_state("top_k_table", project.settings.chunk("000000000000"), "relu") == "done"


def test_chunks_and_merge_in_one_run_are_refused_before_work_starts(project: Project) -> None:
    merge = sae_key(project.settings, "relu", "feature_examples")
    with pytest.raises(dg.Failure, match="feature_examples must be a run of its own"):
        project.chunks(assets=[*project.chunk_assets, merge])


def _metadata(project: Project, key: dg.AssetKey) -> dict[str, Any]:
    """Of the chunk that was recorded last."""
    event = project.instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: one.value for name, one in event.asset_materialization.metadata.items()}


def test_metadata_holds_numbers_as_numbers(project: Project) -> None:
    project.chunks()
    metadata = _metadata(project, sae_key(project.settings, "relu", "top_k_table"))
    assert metadata["samples"] == 7
    assert metadata["vectorization_batch_size"] >= 1
    assert (metadata["batch_size"], metadata["numerics"]["batch_size"], metadata["halvings"]) == (128, 128, [])
    assert metadata["samples_per_second"] == pytest.approx(7 / metadata["seconds"])
    assert metadata["tokens_per_second"] == pytest.approx(metadata["tokens"] / metadata["seconds"])
    assert 0 < metadata["seconds_write"] < 60
    assert 0 < metadata["cpu_utilization_mean"] < 100 * (os.cpu_count() or 1) + 50
    assert 0.05 < metadata["peak_ram_gb"] < 100
    assert not [name for name in metadata if "gpu" in name or "vram" in name]  # a CPU has none
    event = project.instance.get_latest_materialization_event(sae_key(project.settings, "relu", "top_k_table"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.tags["dagster/data_version"] == project.plan.table_fingerprint(
        project.settings.chunk("000000000016"), "relu"
    )


def test_stages_are_no_longer_than_the_pass(project: Project) -> None:
    project.chunks()
    for key in project.chunk_assets:
        metadata = _metadata(project, key)
        stages = [metadata[f"seconds_{stage}"] for stage in ("forward", "encode", "select")]
        assert all(seconds > 0 for seconds in stages)
        assert sum(stages) <= metadata["seconds"]


def test_each_stage_has_a_number_of_its_own(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"forward": 0.5, "encode": 0.25, "select": 0.125}
    monkeypatch.setattr(StageClock, "seconds", lambda _clock: stages)
    project.chunks(0, 0)
    for key in project.chunk_assets:
        metadata = _metadata(project, key)
        assert [metadata[f"seconds_{stage}"] for stage in ("forward", "encode", "select")] == [0.5, 0.25, 0.125]


def test_seconds_of_writing_are_those_of_the_assets_own_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table = chunk_writer.write_table

    def slow(*args: Any) -> None:
        time.sleep(0.5)
        write_table(*args)

    monkeypatch.setattr(chunk_writer, "write_table", slow)
    project.chunks(0, 0)
    assert _metadata(project, sae_key(project.settings, "relu", "top_k_table"))["seconds_write"] >= 0.5
    assert _metadata(project, activations_key(project.settings))["seconds_write"] < 0.5


def test_loading_the_model_slows_neither_the_chunk_nor_the_progress(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = loaded.load_language_model

    def slow(*args: Any, **options: Any) -> LanguageModel:
        time.sleep(3)
        return load(*args, **options)

    monkeypatch.setattr(loaded, "load_language_model", slow)
    result = project.chunks(0, 0)
    assert _metadata(project, activations_key(project.settings))["seconds"] < 3
    (line,) = _log_lines(project, result, "chunks: ")
    found = re.fullmatch(r"chunks: 8 of 8 samples, ([0-9.]+) samples/s", line)
    assert found
    assert float(found[1]) > 8 / 3


def test_chunks_that_are_there_already_are_done_but_not_in_the_rate(project: Project) -> None:
    project.chunks(0, 1)
    result = project.chunks(tags={REUSE_TAG: "true"})
    *_, line = _log_lines(project, result, "chunks: ")
    assert re.fullmatch(r"chunks: 23 of 23 samples, [0-9.]+ samples/s, 16 of them were there already", line)


def test_halvings_are_those_of_the_chunk_where_they_happened(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory_once(samples: Samples, reader: Any, tasks: Any, settings: Any, batch: Any, *rest: Any) -> Any:
        if samples.first_sample == 8:
            batch.halve(batch.size)
        return gpu_pass.chunk_steps(samples, reader, tasks, settings, batch, *rest)

    monkeypatch.setattr(compute, "chunk_steps", out_of_memory_once)
    other = Project(project.settings, project.home, instance=project.instance, vectorization_batch_size=64)
    result = other.chunks(assets=[activations_key(project.settings)])
    metadata = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    found = [(one["halvings"].value, one["vectorization_batch_size"].value) for one in metadata]
    assert found == [([], 64), ([64], 32), ([], 32)]


def test_a_compiled_model_stands_in_the_numerics_record(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compile_blocks(model: LanguageModel) -> None:
        calls.append(model)
        model.compiled = True  # as the real one, without a compiler

    monkeypatch.setattr(LanguageModel, "compile_blocks", compile_blocks)
    compiling = Project(project.settings, project.home, instance=project.instance, compile_model=True)
    key, table = activations_key(project.settings), sae_key(project.settings, "relu", "top_k_table")
    compiling.chunks(0, 1, assets=[key])
    assert len(calls) == 1
    assert _metadata(compiling, key)["numerics"]["compiled"] is True
    compiling.chunks(0, 1, assets=[table])  # from the stored activations, which say it themselves
    numerics = _metadata(compiling, table)["numerics"]
    assert ("compiled" in numerics, numerics["activations"]["compiled"]) == (False, True)
    project.chunks(0, 0, assets=[key])
    assert "compiled" not in _metadata(project, key)["numerics"]


def _log_lines(project: Project, result: dg.ExecuteInProcessResult, start: str) -> list[str]:
    messages = [entry.user_message for entry in project.instance.all_logs(result.run_id)]
    return [message for message in messages if message.startswith(start)]


def test_a_forward_pass_that_does_not_fit_computes_the_chunk_anew_with_half_the_batch(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Project(make_settings(tiny_folder), tmp_path / "small", batch_size=2)
    expected.corpus()
    expected.chunks()
    forward_pass = compute.forward_pass

    def limited(model: LanguageModel, samples: Samples, batch_size: int) -> Any:
        read = forward_pass(model, samples, batch_size)

        def read_if_it_fits(start: int, stop: int) -> Any:
            if batch_size > 2 and start > 0:  # only after a first group has been counted
                raise torch.OutOfMemoryError("CUDA out of memory")
            return read(start, stop)

        return read_if_it_fits

    monkeypatch.setattr(compute, "forward_pass", limited)
    project = Project(make_settings(tiny_folder), tmp_path / "large", batch_size=4, vectorization_batch_size=1)
    project.corpus()
    assert project.chunks().success
    files = "tiny/**/*.*"
    assert project.files(files) == expected.files(files)
    key = sae_key(project.settings, "relu", "top_k_table")
    found = [
        project.instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1)
        .records[0]
        .asset_materialization.metadata
        for partition in project.settings.chunk_keys
    ]
    assert found[0]["forward_halvings"].value == [4]
    assert all(metadata["forward_halvings"].value == [] for metadata in found[1:])
    assert {metadata["batch_size"].value for metadata in found} == {2}
