"""Loading and reading what features write, in both databases."""

import datetime as dt
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
import torch

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries.directions import (
    Neighbour,
    directions_query,
    find_directions,
    logits_of,
    logits_query,
    nearest_of,
    nearest_query,
)
from extraction_assets.database.tables import directions, feature_logits
from extraction_assets.database.writing import feature_directions as module
from extraction_assets.database.writing.feature_directions import DirectionsRow, Loaded, replace_directions
from extraction_assets.database.writing.remove import count_results, delete_results
from extraction_assets.engine.directions.logit_lens import logit_lens
from extraction_assets.engine.directions.nearest import nearest_rows, unit_rows
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.engine.directions.oracle import make_unembedding

NOW = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
F, V, D, ZERO = 60, 90, 8, 5


def shown(token_ids: list[int]) -> list[str]:
    return [f'"<{token_id}>\\ 😀' for token_id in token_ids]


def make(seed: int = 0, *, with_lens: bool = True) -> Loaded:
    decoder = torch.randn(F, D, generator=torch.Generator().manual_seed(seed))
    decoder[ZERO] = 0
    rows, others = unit_rows(decoder), unit_rows(decoder.flip(0)[:7])
    nearest = [nearest_rows(rows, rows, 0, is_itself=True), nearest_rows(rows, others, 1)]
    return Loaded(logit_lens(decoder, make_unembedding(V, D)) if with_lens else None, nearest, ['a "b"', "other"], F)


def load(engine: sa.Engine, loaded: Loaded, sae: str = "one", undefined: str | None = None) -> int:
    row = DirectionsRow("made-up", sae, f"of {sae}", "" if undefined else "a norm", undefined, NOW)
    with write_transaction(engine) as connection:
        return replace_directions(connection, row, loaded, shown)


@pytest.fixture
def engine(results_url: str) -> Iterator[sa.Engine]:
    engine = open_database(results_url)
    yield engine
    engine.dispose()


def test_what_is_loaded_is_read_back(engine: sa.Engine) -> None:
    loaded = make()
    number, lens = load(engine, loaded), loaded.lens
    assert lens is not None
    with engine.connect() as connection:
        found = find_directions(connection, "made-up", "one")
        assert found is not None
        assert (found.id, found.fingerprint, found.norm, found.undefined) == (number, "of one", "a norm", None)
        for feature in (0, 17, F - 1):
            logits = logits_of(connection, number, feature)
            assert logits is not None
            for tokens, ids, values in (
                (logits.top, lens.top_tokens, lens.top_logits),
                (logits.bottom, lens.bottom_tokens, lens.bottom_logits),
            ):
                assert [one.token_id for one in tokens] == ids[feature].tolist()
                assert [one.token for one in tokens] == shown(ids[feature].tolist())
                assert torch.tensor([one.logit for one in tokens]).tolist() == values[feature].tolist()
            moments = [float(one[feature]) for one in (lens.mean, lens.std, lens.minimum, lens.maximum)]
            assert [logits.mean, logits.std, logits.minimum, logits.maximum] == moments
            assert logits.histogram == lens.histogram[feature].tolist()


def test_neighbours_come_with_the_names_of_their_saes(engine: sa.Engine) -> None:
    loaded = make()
    number, (within, across) = load(engine, loaded), loaded.nearest
    with engine.connect() as connection:
        found = nearest_of(connection, number, 3)
    assert found[0] == Neighbour('a "b"', int(within.feature[3, 0]), found[0].cosine)
    assert torch.tensor(found[0].cosine) == within.cosine[3, 0]
    assert [one.sae for one in found] == ['a "b"'] * 20 + ["other"] * 7
    assert [one.neuron_index for one in found[20:]] == across.feature[3, :7].tolist()


def test_a_row_of_zeros_has_no_logits_and_no_neighbours(engine: sa.Engine) -> None:
    number = load(engine, make())
    with engine.connect() as connection:
        assert logits_of(connection, number, ZERO) is None
        assert nearest_of(connection, number, ZERO) == []
        empty = sa.select(feature_logits.c.neuron_index).where(feature_logits.c.top.is_(None))
        assert connection.scalars(empty).all() == [ZERO]


def test_without_a_logit_lens_the_reason_and_neighbours_are_there(engine: sa.Engine) -> None:
    number = load(engine, make(with_lens=False), undefined="no head")
    with engine.connect() as connection:
        found = find_directions(connection, "made-up", "one")
        assert found is not None
        assert (found.norm, found.undefined) == ("", "no head")
        assert logits_of(connection, number, 0) is None
        assert len(nearest_of(connection, number, 0)) == 27


def test_without_a_decoder_the_reason_alone_is_there(engine: sa.Engine) -> None:
    number = load(engine, Loaded(None, [], ["one"], F), undefined="encodes only")
    with engine.connect() as connection:
        assert nearest_of(connection, number, 0) == []
        assert logits_of(connection, number, F - 1) is None
        empty = sa.select(sa.func.count()).where(feature_logits.c.neighbours.is_(None))
        assert connection.scalar(empty) == F


def test_a_second_load_replaces_the_first_and_no_other(engine: sa.Engine) -> None:
    load(engine, make(), "one")
    other = load(engine, make(1), "two")
    load(engine, make(2), "one")
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(directions)) == 2
        assert connection.scalar(sa.select(sa.func.count()).select_from(feature_logits)) == 2 * F
        found = find_directions(connection, "made-up", "two")
        assert found is not None
        assert found.id == other


def test_parts_of_any_size_give_the_same_rows(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [column for column in feature_logits.c if column.name != "directions_id"]
    read = sa.select(*columns).order_by(feature_logits.c.neuron_index)
    load(engine, make())
    with engine.connect() as connection:
        whole = connection.execute(read).all()
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    load(engine, make())
    with engine.connect() as connection:
        assert connection.execute(read).all() == whole


def test_pages_find_a_feature_by_its_key(engine: sa.Engine) -> None:
    number = load(engine, make())
    with engine.begin() as connection:
        assert_uses_index(connection, logits_query(number, 3), "feature_logits")
        assert_uses_index(connection, nearest_query(number, 3), "feature_logits")
        assert_uses_index(connection, directions_query("made-up", "one"), "directions")


def test_delete_counts_and_removes_them_with_their_extraction(engine: sa.Engine) -> None:
    load(engine, make(), "one")
    load(engine, make(), "two")
    with write_transaction(engine) as connection:
        assert count_results(connection, "made-up", "one") == {"directions": 1, "feature_logits": F}
        delete_results(connection, "made-up", "one")
        assert count_results(connection, "made-up") == {"directions": 1, "feature_logits": F}
        delete_results(connection, "made-up")
        assert count_results(connection, "made-up") == {}
