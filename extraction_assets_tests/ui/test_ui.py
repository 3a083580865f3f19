"""The demo driven through the real UI: one backfill from the dialog, then what every page shows of it.

The tests of this file share one server, one home and one browser, and run in their order.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extraction_assets_tests.serving import HOST, free_port, serving
from extraction_assets_tests.ui.browser import Browser

pytestmark = pytest.mark.ui

BACKFILL_SECONDS = 900.0
GROUP = "/locations/__repository__@extraction_assets/asset-groups/demo"
LAUNCHPAD = "/locations/extraction_assets/jobs/__ASSET_JOB/playground"
BATCH = 32


@pytest.fixture(scope="module")
def address(home_of_all: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The UI as ``extraction-assets ui`` serves it, on an empty home."""
    port, log = free_port(), home_of_all / "ui.log"
    command = [str(Path(sys.executable).parent / "extraction-assets"), "ui", "--port", str(port)]
    environment = {"EXTRACTION_HOME": str(home_of_all), "DAGSTER_HOME": "", "EXTRACTION_PROGRESS": "log"}
    with serving(command, port, log, tmp_path_factory.mktemp("elsewhere"), environment):
        yield f"http://{HOST}:{port}"


@pytest.fixture
def page(shared_browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """The browser; what it shows at the end of each test is kept, whether the test passes or fails."""
    shared_browser.address = address
    yield shared_browser
    shared_browser.screenshot(f"end-of-{request.node.name}")


def _ask(address: str, query: str) -> Any:
    """The answer of Dagster's GraphQL."""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["data"]


def _runs(address: str) -> list[str]:
    """Statuses of all runs, the newest first."""
    answer = _ask(address, "{runsOrError {... on Runs {results {status}}}}")
    return [run["status"] for run in answer["runsOrError"]["results"]]


def test_the_launchpad_scaffolds_every_field_of_the_gpu(page: Browser) -> None:
    page.open(LAUNCHPAD)
    text = page.wait("the scaffold", lambda: page.editor if "gpu:" in page.editor else "")
    own = [line.strip() for line in text.splitlines()]
    assert {
        "batch_size: 128",
        "compile_model: false",
        "device: auto",
        "matmul_precision: high",
        "memory_budget_gb: none",
        "num_workers: 8",
        "vectorization_batch_size: auto",
        "vectorized: true",
    } <= set(own)


def test_the_launchpad_refuses_a_wrong_value_before_a_run_exists(page: Browser, address: str) -> None:
    page.open(LAUNCHPAD)
    page.editor = "resources:\n  gpu:\n    config:\n      vectorization_batch_size: banana\n"
    page.click("Materialize")
    page.wait_for_text("vectorization_batch_size must be 'auto' or a whole number of at least 1, got 'banana'")
    assert _runs(address) == []


def test_the_backfill_dialog_takes_a_batch_size_and_the_backfill_ends_with_the_merge(
    page: Browser, address: str
) -> None:
    page.open(GROUP)
    page.click("Materialize all")
    page.click("All")
    page.unfold("Config")
    page.click("Add config")
    page.editor = f"resources:\n  gpu:\n    config:\n      vectorization_batch_size: {BATCH}\n"
    page.put_cursor(line=3)  # Dagster lists the fields that may stand there, in the right half of the dialog
    page.wait_for_text("num_workers", "memory_budget_gb", "Samples reduced at once", "far slower, with the same result")
    page.screenshot("launch")
    page.click("Save config")
    page.click("Launch backfill")
    _wait_for_backfill(page, address)
    page.open("/runs?view=backfills", height=800)
    page.wait_for_text("Success")
    page.click("View")
    page.wait("all eight assets", lambda: page.text.count("100% completed") == 8)
    page.screenshot("backfill")
    statuses = _runs(address)
    assert len(statuses) == 3  # corpus and directions; all chunks in one run; merge, relations and report
    assert set(statuses) == {"SUCCESS"}


def _wait_for_backfill(page: Browser, address: str) -> None:
    query = "{partitionBackfillsOrError {... on PartitionBackfills {results {status error {message}}}}}"

    def ended() -> dict[str, Any]:
        results = _ask(address, query)["partitionBackfillsOrError"]["results"]
        return results[0] if results and results[0]["status"] not in ("REQUESTED", "FAILING", "CANCELING") else {}

    backfill = page.wait("the end of the backfill", ended, BACKFILL_SECONDS)
    assert backfill["status"] == "COMPLETED_SUCCESS", backfill


def test_the_graph_shows_everything_materialized_and_checked(page: Browser) -> None:
    page.open(GROUP, width=2400, height=860)  # so wide that no asset is drawn as a mere name
    page.click("Hide navigation")
    text = page.wait("three full assets", lambda: page.text if page.text.count("100% filled") == 3 else "")
    assert (text.count("4 / 4 Passed"), text.count("2 / 2 Passed")) == (1, 1)
    page.screenshot("graph")


def test_numbers_of_every_chunk_are_plotted(page: Browser) -> None:
    page.open("/assets/demo/layer1/top_k_table", width=1250, height=1250)
    page.wait_for_text("A partition is a chunk of 500 samples")
    page.click("Plots")
    page.wait_for_text("samples_per_second", "variance_explained", "vectorization_batch_size", "mean_l0")
    page.wait("the drawings", lambda: len(page.driver.find_elements("css selector", "canvas")) >= 10)
    page.screenshot("chunk-plots")


def test_a_chunk_says_which_batch_it_was_made_with(page: Browser) -> None:
    page.open("/assets/demo/layer1/top_k_table?view=partitions&partition=000000003500")
    text = page.wait_for_text("vectorization_batch_size", "numerics", "fingerprint")
    assert f"vectorization_batch_size\n{BATCH}\n" in text


def test_merged_examples_show_a_preview_and_two_pictures_in_place(page: Browser) -> None:
    page.open("/assets/demo/layer1/feature_examples", width=1700, height=1450)
    page.wait("two pictures", lambda: len(page.pictures()) == 2)
    text = page.wait_for_text("preview", "strongest example", "density", "examples_per_feature", "features_firing")
    assert "[Show Markdown]" not in text
    page.screenshot("examples")


def test_the_checks_pass_and_executing_all_of_them_alone_succeeds(page: Browser, address: str) -> None:
    page.open("/assets/demo/layer1/top_k_table?view=checks")
    page.wait_for_text("sae_reconstructs_activations", "vectorized_matches_legacy", "Succeeded")
    before = len(_runs(address))
    page.click("Execute all")
    page.wait(
        "the run of the checks", lambda: len(_runs(address)) > before and _runs(address)[0] in ("SUCCESS", "FAILURE")
    )
    assert _runs(address)[0] == "SUCCESS"
    page.open("/assets/demo/layer1/top_k_table?view=checks")
    text = page.wait_for_text("nothing was computed again")
    assert text.count("Succeeded") == 4
    page.screenshot("checks")


def test_the_top_of_the_report_opens_in_the_ui(page: Browser) -> None:
    page.open("/assets/demo/layer1/feature_report", height=1400)
    page.click("[Show Markdown]")
    page.wait("two pictures", lambda: len(page.pictures()) == 2)
    page.wait_for_text("demo / layer1: 4096 features at model.layers.1, 4000 samples")
    page.screenshot("report-in-the-ui")


def test_the_report_opens_from_the_path_that_the_ui_shows(page: Browser, home_of_all: Path) -> None:
    page.open("/assets/demo/layer1/feature_report")
    path = home_of_all / "demo" / "layer1" / "feature_report" / "report.html"
    page.wait_for_text(str(path))
    page.open(path.as_uri(), width=1000, height=1250)
    page.wait_for_text("FEATURES WORTH A LOOK")
    page.screenshot("report")
