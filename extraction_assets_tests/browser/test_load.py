"""Fifty readers of the real server on loopback while merges replace what they read: no error, never half a result."""

import contextlib
import http.client
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets_tests.database.synthetic import make_results
from extraction_assets_tests.serving import HOST, free_port, serving

pytestmark = pytest.mark.slow

READERS = 50
SECONDS = 2.0
NUM_FEATURES, EXAMPLES = 300, 20
RESULTS = [
    make_results(name, value, num_features=NUM_FEATURES, top_k=EXAMPLES) for name, value in (("old", 1.0), ("new", 2.0))
]
TWINS = [f"/made-up/sae/{index}.json" for index in range(0, NUM_FEATURES, 17)]
PAGES = ("/made-up/sae/.json", "/made-up/sae/7", *TWINS)


class Read(NamedTuple):
    """One answer: its status, and which results it is made of."""

    status: int
    found: frozenset[tuple[str, float]]
    """Fingerprint and activation of everything in a feature's twin; empty of other pages."""


@pytest.fixture
def port(results_url: str, tmp_path: Path) -> Iterator[int]:
    """The port of ``browse`` on a database with the old results."""
    pytest.importorskip("uvicorn")
    with opened_database(results_url) as engine, write_transaction(engine) as connection:
        RESULTS[0].load(connection)
    free = free_port()
    command = [str(Path(sys.executable).parent / "extraction-assets"), "browse", "--port", str(free)]
    environment = {"EXTRACTION_HOME": str(tmp_path / "home"), "EXTRACTION_DATABASE_URL": results_url}
    with serving(command, free, tmp_path / "browse.log", tmp_path, environment, page=""):
        yield free


def _read_on(port: int, start: int, end: threading.Event, reads: list[Read]) -> None:
    for page in itertools.cycle((*PAGES[start % len(PAGES) :], *PAGES[: start % len(PAGES)])):
        if end.is_set():
            return
        with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
            connection.request("GET", page)
            answer = connection.getresponse()
            reads.append(Read(answer.status, _made_of(answer.read()) if page in TWINS else frozenset()))


def _made_of(body: bytes) -> frozenset[tuple[str, float]]:
    feature = json.loads(body)["feature"]
    examples = feature["examples"]["top"]
    values = {feature["statistics"]["max_activation"], *(one["max_activation"] for one in examples)}
    count = len(examples) == EXAMPLES == feature["statistics"]["activation_count"]
    return frozenset((feature["provenance"]["fingerprint"] if count else "half", value) for value in values)


def test_fifty_readers_see_the_old_results_or_the_new_ones_while_merges_commit(results_url: str, port: int) -> None:
    end, reads = threading.Event(), [list[Read]() for _ in range(READERS)]
    readers = [threading.Thread(target=_read_on, args=(port, at, end, reads[at])) for at in range(READERS)]
    with opened_database(results_url) as engine:
        for reader in readers:
            reader.start()
        stop, merges = time.monotonic() + SECONDS, 0
        while time.monotonic() < stop or merges < 4:
            with write_transaction(engine) as connection:
                RESULTS[(merges + 1) % 2].load(connection)
            merges += 1
        end.set()
        for reader in readers:
            reader.join(60)
    seen = list(itertools.chain.from_iterable(reads))
    assert {one.status for one in seen} == {200}
    assert all(reads)  # nobody waited all the time
    found = {one.found for one in seen if one.found}
    assert found == {frozenset({("old", 1.0)}), frozenset({("new", 2.0)})}
