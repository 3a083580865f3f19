"""Chunk assets: subsets, reuse of what is stored, events, byte identity."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from extraction_assets.assets.chunks import compute
from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.assets.chunks import writer as chunk_writer
from extraction_assets.assets.chunks.checks import CHUNK_CHECKS, CHUNK_WARNINGS
from extraction_assets.engine.chunk_pass import one_chunk
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution import loaded_models
from extraction_assets.execution.keys import activations_key, sae_key
from extraction_assets.stores.chunk_files import read_table
from extraction_assets_tests.assets.chunks.conftest import Done
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_sae, make_settings

pytestmark = pytest.mark.slow


def _forbid(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    def called(*_args: Any, **_options: Any) -> None:
        raise AssertionError(f"{owner.__name__}.{name} was called")

    monkeypatch.setattr(owner, name, called)


def test_each_chunk_has_one_event_of_each_asset(done: Done) -> None:
    project = done.project
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
    monkeypatch.setattr(loaded_models, "load_language_model", lambda *_a, **_o: pytest.fail("the model was loaded"))
    project.chunks(assets=[sae_key(project.settings, "topk", "top_k_table")])
    assert project.plan.chunk_state("top_k_table", project.settings.chunk("000000000016"), "topk") == "done"


def test_tables_from_stored_files_equal_computed_ones(done: Done, tmp_path: Path) -> None:
    project = done.project
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


def test_an_interrupt_while_the_writer_gets_a_chunk_loses_no_event(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, finish = list[str](), chunk_writer.finish_chunk

    def counted(*arguments: Any) -> Any:
        finished.append("a chunk")
        return finish(*arguments)

    class Writer(ThreadPoolExecutor):
        def submit(self, *work: Any) -> Any:  # type: ignore[override]
            (given := super().submit(*work)).result()
            if len(finished) == 2:
                finished.append("no other interrupt")
                raise dg.DagsterExecutionInterruptedError
            return given

    monkeypatch.setattr(chunk_writer, "finish_chunk", counted)
    monkeypatch.setattr(chunk_writer, "ThreadPoolExecutor", Writer)
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        project.chunks()
    done = set(project.settings.chunk_keys) - set(project.plan.missing_chunks())
    assert len(done) == 2
    for key in project.chunk_assets:
        assert project.instance.get_materialized_partitions(key) == done


def test_a_crash_keeps_the_chunks_before_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def crash_at_third(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return one_chunk.chunk_steps(*args, **options)

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
        steps = one_chunk.chunk_steps(samples, *args)
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
    done: Done, tmp_path: Path, gpu: dict[str, Any]
) -> None:
    other = Project(done.project.settings, tmp_path / "other", **gpu)
    other.corpus()
    other.chunks()
    assert other.files() == done.project.files()


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
