"""docs/scaling.md: its rates are figures of RESULTS.md, and its formulas are right where something is measured."""

import re
from pathlib import Path

import pytest
from generated_parts import arithmetic, scaling
from generated_parts.arithmetic import MODELS, RATES, SMALL, Hours, rate

from benchmarks.options import parse_options
from benchmarks.work import encode_operations, forward_operations

RESULTS = (Path(__file__).parents[1] / "benchmarks" / "RESULTS.md").read_text("utf-8")
GEMMA, GEMMA_WIDE = MODELS[1:3]


def rows(section: str, beginning: str, text: str = RESULTS) -> list[list[str]]:
    """The table rows of a section, up to the next heading of its level, whose first cell begins so."""
    heading = re.search(rf"^(#+) {re.escape(section)}$", text, re.MULTILINE)
    assert heading is not None, section
    rest = text[heading.end() :]
    end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    lines = (rest[: end.start()] if end else rest).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if row[0].startswith(beginning)]


def stands_in(figure: str, row: list[str]) -> bool:
    """Whether a figure is a whole figure of a row, and not a part of another."""
    return any(re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d]|[.,]\d)", cell) for cell in row)


@pytest.mark.parametrize("name", RATES)
def test_a_rate_stands_in_the_results(name: str) -> None:
    given = RATES[name]
    found = rows(str(given["section"]), str(given["row"]))
    assert found, "no such row"
    assert any(stands_in(str(given["figure"]), row) for row in found)


@pytest.mark.parametrize("name", RATES)
def test_the_value_of_a_rate_is_its_figure(name: str) -> None:
    number = re.match(r"[\d,.]+", str(RATES[name]["figure"]))
    assert number is not None
    scale = {"disk": 1e9, "bytes_examples_20": 1e6, "bytes_draws": 1e6}.get(name, 1)
    assert rate(name) == float(number[0].replace(",", "")) * scale


@pytest.mark.parametrize(("figure", "stands"), [("1,505", True), ("505", False), ("1,5", False), ("1.08", False)])
def test_a_part_of_a_figure_is_not_found(figure: str, stands: bool) -> None:
    assert stands_in(figure, ["the floor", "1,505", "1,292"]) is stands


def test_a_changed_result_is_noticed() -> None:
    given = RATES["forward_small"]
    changed = RESULTS.replace(str(given["figure"]), "9,999 samples/s")
    found = rows(str(given["section"]), str(given["row"]), changed)
    assert not any(stands_in(str(given["figure"]), row) for row in found)


@pytest.mark.parametrize(("shape", "model"), [("small", SMALL), ("gemma-2-2b", GEMMA), ("llama-3-8b", MODELS[3])])
def test_operations_are_those_of_the_benchmark(shape: str, model: arithmetic.Model) -> None:
    options = parse_options(["--device", "cpu", "--shape", shape, "--latent-dim", str(model.features)])
    assert arithmetic.forward_flops(model) == forward_operations(options)
    assert arithmetic.encode_flops(model) == encode_operations(options)


def test_weights_of_a_block_by_hand() -> None:
    # Queries and output 2 × 2,304 × 2,048; keys and values 2 × 2,304 × 1,024; feed-forward 3 × 2,304 × 9,216.
    assert arithmetic.block_parameters(GEMMA) == 9_437_184 + 4_718_592 + 63_700_992


@pytest.mark.parametrize(("model", "floor"), [(GEMMA, rate("floor_gemma_16k")), (GEMMA_WIDE, rate("floor_gemma_65k"))])
def test_what_is_measured_follows_from_its_parts_too(model: arithmetic.Model, floor: float) -> None:
    forward = arithmetic.forward_flops(model) / arithmetic.forward_rate(model)
    encode = arithmetic.encode_flops(model) / arithmetic.encode_rate(model)
    assert 1 / (forward + encode) == pytest.approx(floor)
    assert 1 / arithmetic.seconds_per_sample(model) == pytest.approx(floor * rate("share_gemma"))


def test_the_small_shape_is_estimated_as_it_was_measured() -> None:
    estimated = 1 / arithmetic.seconds_per_sample(SMALL._replace(is_measured=False))
    assert estimated == pytest.approx(8_874 * rate("share_small"), rel=0.02)  # forward + encode of RESULTS.md


def test_features_take_what_the_benchmark_stored() -> None:
    assert 100_000 * arithmetic.feature_bytes() == pytest.approx(6.6e9, rel=0.02)


def test_tables_of_the_demo_take_what_they_took() -> None:
    # 500 samples, of which 24 of 4,096 features fire on a token: 6.0 + 0.5 + 2.7 + 0.8 MB in RESULTS.md; 64 fire here.
    demo = SMALL._replace(features=4_096)
    sampled = 500 * arithmetic.feature_bytes() / 16
    assert arithmetic.table_bytes(demo, 500) - sampled == pytest.approx(9.2e6 + 4.5e6, rel=0.02)  # K = 100 all full


def test_examples_are_never_more_than_fire() -> None:
    widest = MODELS[-1]
    assert arithmetic.examples_of_chunk(widest, 1) == 128 * 64
    assert arithmetic.examples_of_chunk(widest, 5_000) == 262_144 * 100


@pytest.mark.parametrize(("samples", "rows_"), [(1_000, 34_768), (10**6, 2_032_768), (10**10, 3_309_568)])
def test_rows_stop_growing_with_the_samples_that_examples_name(samples: int, rows_: int) -> None:
    assert arithmetic.database_rows(GEMMA, samples) == rows_  # 2 × 16,384 + 2 × min(samples, 1,638,400)


@pytest.mark.parametrize(("samples", "chunk"), [(10**6, 5_000), (10**8, 5_000), (10**10, 100_000)])
def test_chunks_stay_below_the_limit_of_partitions(samples: int, chunk: int) -> None:
    assert arithmetic.chunk_size(samples, 100_000) == chunk


def test_the_longest_part_bends_first() -> None:
    assert scaling.longest(Hours(1, 2, 9, 3, 0, 0, 4, 0)) == "activations"


def test_every_part_has_a_remedy() -> None:
    assert set(Hours._fields) == scaling.REMEDIES.keys()
