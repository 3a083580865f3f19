"""``show``: a feature by its number, or features by a token."""

import datetime as dt
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result

from extraction_assets.cli.show import Token, parse_feature
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.tables import feature_tokens, relations
from extraction_assets_tests.command import declare, invoke
from extraction_assets_tests.database.synthetic import make_results

Show = Callable[..., Result]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Show:
    """Twelve features of which the third, say, has the tokens t4 and t5; tokens begin again after t7."""
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", url := f"sqlite:///{tmp_path}/results.sqlite")
    engine = open_database(url)
    with write_transaction(engine) as connection:
        make_results("f", 1.5, num_features=12, top_k=2).load(connection)
    engine.dispose()
    return partial(invoke, declare(monkeypatch), "show", "made-up")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("12", 12),
        ("#12", 12),
        ("'12'", Token("12", True)),
        ('"#12"', Token("#12", True)),
        ("import", Token("import", False)),
        (" import", Token(" import", False)),
        ("' import'", Token(" import", True)),
        ("1.5", Token("1.5", False)),
        ("'", Token("'", False)),
        ("⏎⇥", Token("\n\t", False)),
        ("١٢", Token("١٢", False)),
    ],
)
def test_digits_are_a_number_and_all_else_is_a_token(text: str, meant: int | Token) -> None:
    assert parse_feature(text) == meant


@pytest.mark.parametrize("number", ["7", "#7"])
def test_a_number_shows_that_feature(show: Show, number: str) -> None:
    output = show(number).output
    assert re.findall("^feature ([0-9]+) ", output, re.MULTILINE) == ["7"]
    assert "[t6]" in output


def test_a_token_shows_the_features_that_have_it(show: Show) -> None:
    output = show("t4").output
    found = "3 features with 't4' as the strongest token of some of their strongest examples"
    assert output.splitlines()[0] == found
    assert re.findall("^feature ([0-9]+) ", output, re.MULTILINE) == ["2", "6", "10"]


def test_no_more_features_than_asked_for_are_shown_and_the_next_are_named(show: Show) -> None:
    output = show("t4", "--features", "1").output
    assert output.splitlines()[0].endswith("; the first 1 are shown, then come 6, 10")
    assert re.findall("^feature ([0-9]+) ", output, re.MULTILINE) == ["2"]


def test_a_token_that_no_feature_has_is_one_sentence(show: Show) -> None:
    result = show("T4")
    assert result.exit_code == 1
    assert result.output == (
        "Error: no feature has 'T4' as the strongest token of one of its 20 strongest examples; there are 't4'\n"
    )


def test_a_token_that_stands_in_no_strongest_example_shows_the_features_that_fire_on_it(
    show: Show, tmp_path: Path
) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/results.sqlite")
    row = {"extraction_id": 1, "place": "firing", "rank": 0, "token_id": 9, "token": " rare"}
    row |= {"mean_activation": 1.0, "share": 0.5}
    counted = {"fingerprint": "r", "merge_fingerprint": "f", "scope": "sample", "sample_one_in": 16}
    with write_transaction(engine) as connection:
        fired = [
            {**row, "neuron_index": number, "token": " rare", "count": count} for number, count in ((3, 1), (8, 5))
        ]
        connection.execute(sa.insert(feature_tokens), fired)
        sizes = {"sample_count": 1, "token_count": 1, "finished_at": dt.datetime.now(dt.UTC)}
        connection.execute(sa.insert(relations).values(extraction_id=1, **counted, **sizes))
    engine.dispose()
    output = show("rare").output
    assert output.startswith("2 features with 'rare' among the tokens on which they fire most often, but not in their")
    assert re.findall("^feature ([0-9]+) ", output, re.MULTILINE) == ["8", "3"]


def test_without_a_feature_as_many_as_asked_for_are_shown(show: Show) -> None:
    assert show("--features", "3").output.count("feature ") == 3


@pytest.mark.parametrize("token", ["", "''", '""'])
def test_an_empty_token_is_one_sentence(show: Show, token: str) -> None:
    result = show(token)
    assert result.exit_code == 1
    assert result.output == (
        "Error: a token has at least one character; leave it out to see features that are easy to read\n"
    )


def test_an_argument_that_is_not_text_is_one_sentence(show: Show) -> None:
    result = show("\udcff")
    assert result.exit_code == 1
    assert result.output == "Error: '\\udcff' is not UTF-8 text, so that no token is like it\n"


def test_a_statistic_that_an_earlier_version_did_not_count_is_named_once(show: Show) -> None:
    lines = [line for line in show().stdout.splitlines() if "std_activation" in line]
    assert lines == [
        "std_activation is not known in this result: some of its chunks are of an earlier version, which did not count "
        "that; `run made-up` computes them again"
    ]
