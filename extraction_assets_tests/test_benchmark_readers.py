"""Readers beside a load: what they count, and that one which fails is not overlooked."""

import sqlite3
import time
from pathlib import Path

import pytest

from benchmarks.readers import Look, reading, summary
from extraction_assets_tests.browser.small_results import store_results


def test_looks_that_ended_between_two_moments_are_summed_up() -> None:
    looks = [Look(float(at), at / 1000) for at in range(1, 201)]
    assert summary(looks, 101.0, 200.0) == "100 looks, median 150.5, 99 in 100 200.0, longest 200.0 ms"
    assert summary(looks, 300.0, 400.0) == "no look ended"


@pytest.mark.slow
def test_readers_look_while_the_block_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'results.sqlite'}"
    store_results(url)
    with reading(url) as looks:
        started = time.time()
        time.sleep(0.3)
    assert any(look.at > started for look in looks)
    assert all(look.seconds > 0 for look in looks)


@pytest.mark.slow
def test_a_reader_that_fails_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    store_results(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP VIEW sample_features")
    with pytest.raises(RuntimeError, match="a reader beside the load failed"), reading(f"sqlite:///{path}"):
        pass
