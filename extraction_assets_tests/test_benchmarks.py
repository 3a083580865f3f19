"""The benchmark at a tiny shape: every line is there, and a wrong engine is not called fast."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks import backfill_path, daemon_path, daemon_project, dagster_path, inputs, merging, stages
from benchmarks.extraction import main
from benchmarks.options import GPUS_STAGES, STAGES, parse_options
from benchmarks.work import encode_operations, forward_operations, least_seconds
from extraction_assets.cli import gpu_processes
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.shapes import TopKTable
from extraction_assets_tests import forked_dagster, processes

_MODEL = {"blocks": 2, "width": 32, "heads": 2, "intermediate": 64, "vocabulary": 300}
_SIZES = {"positions": 12, "latent-dim": 64, "features-per-token": 5, "top-k": 4, "chunk-size": 16, "batch-size": 8}
_LIMITS = {"samples": 20, "legacy-samples": 3, "saes": 4, "time-limit": 0.05, "copy-mib": 1, "matmul-size": 32}
_SHAPE = {"device": "cpu", "vectorization-batch-sizes": "1,auto", **_MODEL, **_SIZES, **_LIMITS}
SHAPE = [f"--{name}={value}" for name, value in _SHAPE.items()]

LINES = [
    "copy, host to host",
    "disk, written and synced",
    "matrix product, bf16",
    "matrix product, float32",
    "forward alone, eager",
    "forward + encode, eager (the floor)",
    "encode alone, eager dense",
    "encode alone, ours, to non-zeros",
    "legacy loop on encoded features",
    "plan's dense form: max and top positions",
    "selection alone, dense features to table",
    "selection alone, non-zeros to table and statistics",
    "ours, vectorization batch 1",
    "ours, vectorization batch auto",
    "ours, vectorization batch auto, in chunks and merged",
    "ours, statistics basic, vectorization batch auto",
    "ours, statistics full, vectorization batch auto",
    "the pass with full statistics takes",
    "ours equals legacy",
    "4 SAEs in one pass",
    "4 SAEs, a pass for each",
    "4 SAEs: one pass is faster by",
    *(
        f"Dagster, 20 samples, {stored} stored: {part}"
        for stored in ("tables and features", "tables, features and activations")
        for part in (
            "run start to commit",
            "run of the chunks",
            "the chunks' passes alone",
            "run of the merge",
            "run of relations and report",
        )
    ),
]


@pytest.fixture
def forked(tmp_path: Path) -> dict[str, str]:
    """Variables of processes in which Dagster's own are forks."""
    notes = tmp_path / "notes"
    notes.mkdir()
    return {processes.FORK_SERVER: processes.address(), forked_dagster.NOTES: str(notes)}


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch, forked: dict[str, str]) -> None:
    """Its own processes begin with everything imported, and so do those of Dagster's commands."""
    for module in (dagster_path, gpu_processes):
        monkeypatch.setattr(module, "PROCESSES", processes.Hurried())

    def command(environment: Mapping[str, str], module: str, *arguments: str) -> str:
        done = processes.run_module(module, arguments, environment={**environment, **forked})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    monkeypatch.setattr(daemon_project, "command", command)


@pytest.fixture
def _forked_daemon(monkeypatch: pytest.MonkeyPatch, forked: dict[str, str]) -> None:
    """The daemon, its code server and its runs, too, and what asks for a backfill."""

    @contextmanager
    def daemon(environment: Mapping[str, str], home: Path) -> Iterator[None]:
        words, streams = ["run", "-m", daemon_project.MODULE], home / "daemon"
        streams.mkdir()
        process = processes.start_module("dagster._daemon", words, home, {**environment, **forked}, streams)
        try:
            yield
        finally:
            process.terminate()
            process.join()

    def python(environment: Mapping[str, str], *words: str) -> str:
        _option, code, *arguments = words
        done = processes.run_module(processes.CODE, [code, *arguments], environment={**environment, **forked})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    monkeypatch.setattr(backfill_path, "daemon", daemon)
    monkeypatch.setattr(daemon_path, "daemon", daemon)
    monkeypatch.setattr(backfill_path, "python", python)


@pytest.mark.slow
def test_every_line_is_measured_and_ours_equals_legacy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert main([*SHAPE, "--only", ",".join(set(STAGES) - {"daemon", *GPUS_STAGES}), "--json", str(file)]) == 0
    printed, figures = capsys.readouterr().out, json.loads(file.read_text())
    lines = {line["name"]: line for line in figures["lines"]}
    assert list(lines) == LINES
    assert all(f"| {name} |" in printed for name in LINES)
    assert lines["ours equals legacy"]["notes"]["equal"]
    assert all(line["value"] > 0 for name, line in lines.items() if name != "ours equals legacy")
    floor = lines["forward + encode, eager (the floor)"]["value"]
    ours = lines["ours, vectorization batch auto"]
    assert ours["to_floor"] == pytest.approx(ours["value"] / floor)
    assert 0 < ours["to_ceiling"] < 1
    assert lines["legacy loop on encoded features"]["to_ceiling"] is None
    assert 2 < figures["conditions"]["features_per_token"] < 10
    assert "| top_k_table | seconds |" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("_forked_daemon")
def test_what_a_run_waits_for_a_daemon_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main([*SHAPE, "--only", "daemon", "--samples", "16", "--json", str(file)]) == 0
    lines = {line["name"]: line["value"] for line in json.loads(file.read_text())["lines"]}
    assert list(lines) == [
        "daemon, 16 samples: the chunks' run in the queue, and its process's start",
        "daemon, 16 samples: run of the chunks",
        "daemon, 16 samples: until the sensor's tick asks for the merge",
        "daemon, 16 samples: the merge's run in the queue, and its process's start",
        "daemon, 16 samples: run of the merge, with the report",
    ]
    assert all(value > 0 for value in lines.values())


def test_a_broken_selection_shows_in_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = DeferredTopKHeap.build_heaps

    def broken(heap: DeferredTopKHeap) -> TopKTable:
        table = build(heap)
        return table._replace(sample_index=table.sample_index.flip(0))

    monkeypatch.setattr(DeferredTopKHeap, "build_heaps", broken)
    assert main([*SHAPE, "--only", "equality"]) == 1
    assert "| ours equals legacy | false |" in capsys.readouterr().out


def test_a_stage_that_fails_is_a_failed_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_stages: stages.Stages) -> None:
        raise ValueError("no floor today")

    monkeypatch.setattr(stages.Stages, "floor", fail)
    assert main([*SHAPE, "--only", "floor,forward"]) == 1
    printed = capsys.readouterr().out
    assert "| floor | failed |" in printed
    assert "no floor today" in printed
    assert "| forward alone, eager |" in printed


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cpu", "--only", "forwards"])
    assert "no stage forwards" in capsys.readouterr().err


def test_a_folder_is_the_same_from_every_working_directory() -> None:
    assert parse_options(["--device", "cpu", "--folder", "here"]).folder == Path("here").absolute()


@pytest.mark.slow
def test_every_page_of_the_browser_is_timed(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    from benchmarks import browsing
    from benchmarks.browsing_results import Sizes

    sizes = ["--features", "600", "--samples", "900", "--repeats", "1"]
    lines = browsing.main([*sizes, "--folder", str(tmp_path), "--json", str(tmp_path / "lines.json")])
    assert [line.page for line in lines] == list(browsing.pages(Sizes(600, 900)))
    assert all(line.html_ms > 0 and line.kilobytes > 1 for line in lines)
    assert len(json.loads((tmp_path / "lines.json").read_text())) == len(lines)


@pytest.mark.slow
def test_pages_of_the_browser_on_postgresql_have_the_same_rows(tmp_path: Path, postgres_url: str) -> None:
    pytest.importorskip("uvicorn")
    from benchmarks import browsing

    sizes = ["--features", "600", "--samples", "900", "--repeats", "1", "--folder", str(tmp_path)]
    pages = [
        {line.page: line.kilobytes for line in browsing.main([*sizes, *more])}
        for more in ([], ["--postgres", postgres_url])
    ]
    for page, kilobytes in pages[0].items():  # the SQL of a page is written otherwise
        assert pages[1][page] == pytest.approx(kilobytes, rel=0.15, abs=2), page


@pytest.mark.slow
def test_processes_that_share_the_chunks_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    few = ["--gpus", "1,2", "--keep", "features", "--copy-mib", "4"]
    assert main([*SHAPE, *few, "--only", "gpus,shared", "--json", str(file)]) == 0
    lines = {line["name"]: line for line in json.loads(file.read_text())["lines"]}
    name = "20 samples, tables and features stored, 2 GPUs"
    assert sum(lines[name]["notes"]["chunks of each run"]) == 2
    assert lines[f"{name}: the same tables"]["notes"]["equal"]
    assert lines[f"{name} against 1"]["value"] > 0
    assert len(lines["a loop of Python, 2 processes"]["notes"]["of each"]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("_forked_daemon")
def test_runs_of_a_backfill_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    few = ["--gpus", "1,2", "--samples", "20", "--chunk-size", "5"]
    assert main([*SHAPE, *few, "--only", "backfill", "--json", str(file)]) == 0
    lines = {line["name"]: line for line in json.loads(file.read_text())["lines"]}
    name = "backfill, 20 samples, 2 GPUs"
    assert lines[name]["notes"]["chunks of each run"] == [2, 2]
    assert lines[f"{name}: the same tables"]["notes"]["equal"]
    assert lines[f"{name} against 1"]["value"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["jumprelu", "gated", "topk"])
def test_every_architecture_fires_as_often_as_wanted(tmp_path: Path, architecture: str) -> None:
    file = tmp_path / "figures.json"
    chosen = ["--architecture", architecture, "--only", "floor,equality", "--json", str(file)]
    assert main([*SHAPE, *chosen]) == 0
    assert 2 < json.loads(file.read_text())["conditions"]["features_per_token"] < 10


def test_a_shape_gives_the_sizes_that_are_left_open() -> None:
    options = parse_options(["--device", "cpu", "--shape", "gemma-2-2b", "--blocks", "2"])
    sizes = options.blocks, options.width, options.heads, options.key_value_heads, options.head_size
    assert sizes == (2, 2304, 8, 4, 256)


def test_the_size_of_a_head_follows_from_width_and_heads_that_are_named() -> None:
    options = parse_options(["--device", "cpu", "--shape", "gemma-2-2b", "--width", "64"])
    assert (options.head_size, options.key_value_heads) == (8, 8)


def test_more_features_than_the_engine_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--device", "cpu", "--latent-dim", "1048577"])
    assert "at most 1,048,576 features" in capsys.readouterr().err


def test_each_product_has_a_ceiling_of_its_own() -> None:
    """By hand: T = 2, D = 4, one block, one head of 4, MLP of 8, F = 16."""
    sizes = {"blocks": 1, "width": 4, "heads": 1, "intermediate": 8, "positions": 2, "latent-dim": 16}
    options = parse_options(["--device", "cpu", *(f"--{name}={value}" for name, value in sizes.items())])
    assert forward_operations(options) == 2 * (2 * (4 * 4 * 4 + 3 * 4 * 8) + 2 * 4 * 2)
    assert encode_operations(options) == 2 * 2 * 4 * 16
    assert least_seconds(options, ("encode",), {"float32": 256e-12}) == pytest.approx(1.0)
    assert least_seconds(options, ("encode",), {"bf16": 1.0}) is None


def test_encoding_by_parts_gives_the_features_of_a_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parse_options(SHAPE)
    inputs.make_checkpoints(tmp_path, options)
    engine = inputs.load_engine(tmp_path, options)
    ours = stages.Stages(options, engine)._encoded(11)
    ids, mask = engine.samples.token_ids[:16], engine.samples.attention_mask[:16]
    outputs = engine.model.activations(ids, mask)[options.hook].flatten(0, 1)
    expected = engine.sae.encode(outputs).view(16, options.positions, -1)[:11]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_benchmark_of_merging_says_what_follows_for_ten_thousand_chunks(tmp_path: Path) -> None:
    lines = list(merging.report(merging.Sizes(features=64, top_k=4, examples=2), [2, 5], tmp_path))
    assert [line.split("|")[1].strip() for line in lines[:3]] == ["2 chunks", "5 chunks", "4 tables of many chunks"]
    assert "After one more chunk: 33 tables of many chunks, 16 of one" in lines[-2]


@pytest.mark.slow
def test_tokens_and_events_beside_the_passes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import beside_passes

    monkeypatch.setattr(beside_passes, "_CHUNKS", (1, 2))
    assert 150 * 128 < beside_passes.tokenizing(200).tokens <= 200 * 128
    tables = next(beside_passes.recording(None))
    assert (tables.what, tables.events) == ("top-k tables alone", 6.0)


@pytest.mark.slow
@pytest.mark.parametrize("export_format", ["parquet", "jsonl"])
def test_an_export_is_measured_with_all_of_its_examples(tmp_path: Path, export_format: str) -> None:
    from benchmarks import exporting
    from benchmarks.browsing_results import Sizes, make_results

    make_results(tmp_path / "results.sqlite", Sizes(64, 300, top_k=10))
    line = exporting.measure(tmp_path / "results.sqlite", export_format, tmp_path / "out", 64)
    assert (line.features, line.examples) == (64, 64 * (10 + 2))
    assert 0 < line.before_mib <= line.peak_mib
    assert (tmp_path / "out" / "export.json").is_file()
