"""What is recorded with a chunk: numbers, seconds of each stage, halvings and the numerics record."""

import os
import re
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from extraction_assets.assets.chunks import compute
from extraction_assets.assets.chunks import finish as chunk_writer
from extraction_assets.engine.chunk_pass import one_chunk
from extraction_assets.engine.chunk_pass.stage_clock import StageClock
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution import loaded_models
from extraction_assets.execution.keys import REUSE_TAG, activations_key, sae_key
from extraction_assets_tests.assets.chunks.conftest import Done
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow


def _metadata(project: Project, key: dg.AssetKey) -> dict[str, Any]:
    """Of the chunk that was recorded last."""
    event = project.instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: one.value for name, one in event.asset_materialization.metadata.items()}


def test_metadata_holds_numbers_as_numbers(done: Done) -> None:
    project = done.project
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


def test_stages_are_no_longer_than_the_pass(done: Done) -> None:
    project = done.project
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
    load = loaded_models.load_language_model

    def slow(*args: Any, **options: Any) -> LanguageModel:
        time.sleep(3)
        return load(*args, **options)

    monkeypatch.setattr(loaded_models, "load_language_model", slow)
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
        return one_chunk.chunk_steps(samples, reader, tasks, settings, batch, *rest)

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
