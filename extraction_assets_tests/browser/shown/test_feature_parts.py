"""What a feature's page says in words, and the order in which random features come."""

import pytest

from extraction_assets.browser.shown.feature_parts import flag, scope_sentence, shuffled_after


@pytest.mark.parametrize(
    ("name", "detail", "says"),
    [
        ("dead", {"tokens": 10}, "dead: it never fires"),
        ("dense", {"share": 0.25}, "dense: it fires on 25.0% of tokens"),
        (
            "duplicate",
            {"of": 2, "jaccard": 0.97, "count": 7},
            "duplicate of #2: Jaccard 0.97 of the tokens on which they fire",
        ),
        ("one_token", None, "one token"),
        ("of_the_future", {"x": 1}, "of the future"),
    ],
)
def test_a_flag_says_the_numbers_that_it_is_given_for(name: str, detail: dict[str, float] | None, says: str) -> None:
    assert flag(name, detail).says == says


def test_a_duplicate_names_the_other_feature() -> None:
    assert flag("duplicate", {"of": 2, "jaccard": 1.0}).duplicate_of == 2


def test_what_was_counted_over_is_said() -> None:
    assert scope_sentence("corpus", 16, 4000, 502914) == "counted over the whole corpus: 4,000 samples, 502,914 tokens"
    assert scope_sentence("sample", 16, 251, 31512).startswith("counted over 1 in 16 samples, chosen by hash")


@pytest.mark.parametrize("latent_dim", [1, 2, 6, 4096, 5000])
def test_random_features_come_to_every_one_once(latent_dim: int) -> None:
    assert sorted(shuffled_after(0, latent_dim, latent_dim)) == list(range(latent_dim))


def test_going_on_from_each_feature_walks_the_same_order() -> None:
    first, second, third = shuffled_after(17, 4096, 3)
    assert shuffled_after(first, 4096, 2) == [second, third]
    assert abs(second - first) > 1
