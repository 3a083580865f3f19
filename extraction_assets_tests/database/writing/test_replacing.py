"""Replacing results while others read, write, or cut the connection."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets.database.backends import sqlite
from extraction_assets.database.backends.postgresql import bulk
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.tables import corpora, extractions, features, samples
from extraction_assets.database.views import feature_activations, sample_features
from extraction_assets.database.writing import feature_examples as load_module
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.database.synthetic import Results, make_results
from extraction_assets_tests.postgres import Server

LOST = r"^the results database postgresql://tester:\*\*\*@\S+ cannot be used: the connection was lost \(.+\)$"


class Seen(tuple[str, int, float, float]):
    """What a reader finds in one transaction: fingerprint, number of examples, least and largest activation."""


@pytest.fixture
def engine(results_url: str) -> Iterator[sa.Engine]:
    engine = open_database(results_url)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_engine(postgres_url: str) -> Iterator[sa.Engine]:
    engine = open_database(postgres_url)
    yield engine
    engine.dispose()


def _look(connection: sa.Connection) -> Seen:
    fa = feature_activations.c
    fingerprint = connection.scalar(sa.select(extractions.c.fingerprint))
    counts = connection.execute(
        sa.select(sa.func.count(), sa.func.min(fa.max_activation), sa.func.max(fa.max_activation))
    ).one()
    return Seen((str(fingerprint), *counts))


def _load(engine: sa.Engine, results: Results) -> None:
    with write_transaction(engine) as connection:
        results.load(connection)


class Readers:
    """Threads that look at the results again and again, each look a transaction of its own."""

    def __init__(self, engine: sa.Engine, count: int) -> None:
        self._engine, self._done = engine, threading.Event()
        self.seen: list[list[Seen]] = [[] for _ in range(count)]
        self._threads = [threading.Thread(target=self._read, args=(seen,)) for seen in self.seen]

    def _read(self, seen: list[Seen]) -> None:
        while not self._done.is_set():
            with self._engine.connect() as connection:
                seen.append(_look(connection))
            self._done.wait(0.05)  # leaves the writer a core

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def _wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "a reader was held up"
        time.sleep(0.05)


@pytest.mark.slow
def test_readers_see_old_or_new_while_400_000_rows_are_replaced(engine: sa.Engine) -> None:
    old = make_results("old", 1.0, num_features=4_096)
    new = make_results("new", 2.0, num_features=4_096)
    _load(engine, old)
    with Readers(engine, count=1) as readers:
        with write_transaction(engine) as connection:
            new.load(connection)
            loaded = [len(seen) for seen in readers.seen]
            _wait_for(lambda: all(len(seen) > count for seen, count in zip(readers.seen, loaded, strict=True)))
        _wait_for(lambda: all(seen[-1][0] == "new" for seen in readers.seen))
    whole = {Seen(("old", 409_600, 1.0, 1.0)), Seen(("new", 409_600, 2.0, 2.0))}
    for seen in readers.seen:
        assert set(seen) == whole
        assert seen == sorted(seen, reverse=True), "new, and then old again"


def test_a_reader_sees_one_state_over_several_queries(engine: sa.Engine) -> None:
    _load(engine, make_results("old", 1.0, num_features=3))
    with engine.connect() as reader:
        assert reader.scalar(sa.select(extractions.c.fingerprint)) == "old"
        _load(engine, make_results("new", 2.0, num_features=3))
        assert reader.scalar(sa.select(sa.func.max(features.c.max_activation))) == 1.0
        assert _look(reader) == ("old", 300, 1.0, 1.0)
    with engine.connect() as reader:
        assert _look(reader) == ("new", 300, 2.0, 2.0)


def _finds_by_sample(engine: sa.Engine) -> None:
    sf = sample_features.c
    with engine.connect() as connection:
        by_sample = sa.select(sf.neuron_index).where(sf.extraction_id == 1, sf.sample_index == 42)
        assert_uses_index(connection, by_sample, "sample_feature_lists")


@pytest.mark.parametrize("others", [0, 1, 4])
def test_a_load_that_fails_leaves_rows_and_index(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    for other in range(others):
        _load(engine, make_results("other", 3.0, num_features=3, sae=str(other)))
    _load(engine, make_results("old", 1.0, num_features=3))
    fails_late = {samples: (1 / 0 for _ in range(1))}
    monkeypatch.setattr(load_module, "sample_parts", lambda *_: fails_late)
    with pytest.raises(ZeroDivisionError):
        _load(engine, make_results("new", 2.0, num_features=3))
    _finds_by_sample(engine)
    with engine.connect() as connection:
        counts = sa.select(sa.func.count()).select_from(feature_activations)
        assert connection.scalar(counts) == 300 * (others + 1)
        assert connection.scalar(counts.where(feature_activations.c.max_activation == 1.0)) == 300


def test_a_replacement_keeps_the_rows_and_samples_of_other_saes(engine: sa.Engine) -> None:
    """Fewer samples than before: what only the replaced result named goes, what another one names stays."""
    _load(engine, make_results("old", 1.0, num_features=60, sae="one"))
    _load(engine, make_results("other", 3.0, num_features=20, sae="two"))
    _load(engine, make_results("new", 2.0, num_features=10, sae="one"))
    with engine.connect() as connection:
        fa = feature_activations.c
        rows = sa.select(fa.max_activation, sa.func.count()).group_by(fa.max_activation).order_by(fa.max_activation)
        assert [tuple(row) for row in connection.execute(rows)] == [(2.0, 1000), (3.0, 2000)]
        named = connection.scalars(sa.select(fa.sample_index).distinct().order_by(fa.sample_index)).all()
        present = connection.scalars(sa.select(samples.c.sample_index).order_by(samples.c.sample_index)).all()
        assert present == named
        assert len(present) == 2000


def test_a_merge_neither_holds_up_readers_nor_waits_for_them(postgres_engine: sa.Engine) -> None:
    _load(postgres_engine, make_results("old", 1.0, num_features=3))
    with postgres_engine.connect() as early:
        assert _look(early) == ("old", 300, 1.0, 1.0)
        with write_transaction(postgres_engine) as writer:
            writer.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            make_results("new", 2.0, num_features=3).load(writer)
            with postgres_engine.connect() as late:
                late.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
                assert _look(late) == ("old", 300, 1.0, 1.0)
        assert _look(early) == ("old", 300, 1.0, 1.0)


def _end_connections(server: Server, which: str) -> int:
    return len(server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}"))


def test_a_connection_dropped_in_mid_load_leaves_the_old_rows(
    postgres_engine: sa.Engine, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _load(postgres_engine, make_results("old", 1.0, num_features=50))
    pieces = bulk._pieces

    def cut(rows: object, types: list[str]) -> Iterator[bytes | memoryview]:
        for number, piece in enumerate(pieces(rows, types)):
            if number == 2 and types == ["BIGINT", "BIGINT", "JSON"]:  # the examples have been sent
                assert _end_connections(postgres_server, "query LIKE 'COPY feature_example_lists%'") == 1
            yield piece

    monkeypatch.setattr(bulk, "_pieces", cut)
    monkeypatch.setattr(bulk, "_BATCH_ROWS", 1000)
    with pytest.raises(DatabaseError) as raised:
        _load(postgres_engine, make_results("new", 2.0, num_features=50))
    assert re.search(LOST, str(raised.value))
    assert "\n" not in str(raised.value)
    assert postgres_server.password not in str(raised.value)
    with postgres_engine.connect() as connection:
        assert _look(connection) == ("old", 5000, 1.0, 1.0)


def test_a_connection_dropped_while_it_waits_is_one_sentence(
    postgres_engine: sa.Engine, postgres_server: Server
) -> None:
    with pytest.raises(DatabaseError, match=LOST), write_transaction(postgres_engine) as connection:
        own = f"datname = '{postgres_engine.url.database}'"
        assert _end_connections(postgres_server, own) >= 1
        connection.execute(sa.delete(features))


def test_a_database_that_stays_locked_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 100)
    engine = open_database(f"sqlite:///{tmp_path / 'results.sqlite'}")
    with write_transaction(engine), pytest.raises(DatabaseError, match=r"results\.sqlite .*database is locked"):
        _load(engine, make_results("new", 2.0, num_features=1))
    engine.dispose()


@pytest.mark.slow
def test_merges_at_once_keep_all_their_rows(engine: sa.Engine) -> None:
    """Two SAEs share samples and the corpus; each is replaced several times while the other is."""
    failures: list[Exception] = []

    def merge(sae: str) -> None:
        try:
            for round_ in range(4):
                _load(engine, make_results(f"{sae} {round_}", 1.0 + round_, num_features=40, sae=sae))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=merge, args=(sae,)) for sae in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with engine.connect() as connection:
        counts = sa.select(extractions.c.fingerprint, sa.func.count()).join(
            feature_activations, feature_activations.c.extraction_id == extractions.c.id
        )
        rows = connection.execute(counts.group_by(extractions.c.fingerprint).order_by(extractions.c.fingerprint))
        assert [tuple(row) for row in rows] == [("one 3", 4000), ("two 3", 4000)]
        assert connection.scalar(sa.select(sa.func.count()).select_from(corpora)) == 1
        named = sa.select(sa.func.count(feature_activations.c.sample_index.distinct()))
        assert connection.scalar(sa.select(sa.func.count()).select_from(samples)) == connection.scalar(named)
