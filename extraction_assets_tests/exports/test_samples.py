"""Samples that examples name: read once while there is room, and no more of them kept than that."""

import sqlalchemy as sa

from extraction_assets.exports.samples import SampleTexts
from extraction_assets_tests.browser.small_results import SAMPLES


def queries_of(connection: sa.Connection, found: list[str]) -> None:
    """Notes every statement that a connection runs from now on."""
    sa.event.listen(connection, "before_cursor_execute", lambda *event: found.append(event[2]))


def test_a_sample_is_as_it_is_stored(small: sa.Connection) -> None:
    for index, sample in SampleTexts(small, corpus_id=1).take(SAMPLES).items():
        document, first, tokens = SAMPLES[index]
        assert (sample.document_id, sample.first_token, sample.tokens()) == (document, first, tokens)
        assert sample.token_ids() == [100 + at for at in range(len(tokens))]
        assert sample.length == len(tokens)


def test_what_is_kept_is_not_read_again(small: sa.Connection) -> None:
    texts, queries = SampleTexts(small, corpus_id=1), list[str]()
    first = texts.take([7, 8])
    queries_of(small, queries)
    assert texts.take([8, 7]) == first
    assert queries == []


def test_the_latest_ones_are_kept_as_long_as_there_is_room(small: sa.Connection) -> None:
    texts, queries = SampleTexts(small, corpus_id=1, kept_bytes=600), list[str]()
    for index in (7, 8, 10):
        texts.take([index])
    queries_of(small, queries)
    texts.take([10])
    assert queries == []
    texts.take([7])
    assert len(queries) == 1


def test_a_sample_that_is_not_stored_is_left_out(small: sa.Connection) -> None:
    assert SampleTexts(small, corpus_id=1).take([7, 99]).keys() == {7}
