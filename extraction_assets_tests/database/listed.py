"""Features by hand for lists of them: few different values, so that many are equal, and some that never fire."""

import datetime as dt
import random
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES, bin_of
from extraction_assets.database.connect import write_transaction
from extraction_assets.database.queries.feature_filter import FLAGS, LABELLED, FeatureFilter, Listing, Range
from extraction_assets.database.queries.labels import MARKS
from extraction_assets.database.tables import corpora, extractions, feature_flags, feature_labels, features
from extraction_assets_tests.database.stored_rows import store_rows

NAME, SAE = "listed", "sae"

FILTERS = [
    FeatureFilter(),
    FeatureFilter(density=Range(0.001, 0.01)),
    FeatureFilter(density=Range(0.0012, None), maximum=Range(None, 4.0)),
    FeatureFilter(maximum=Range(0.7, 7.3), mean=Range(0.26, None)),
    FeatureFilter(flags=("dense",), std=Range(None, 0.2)),
    FeatureFilter(flags=("dense", "one_token"), label="interesting"),
    FeatureFilter(label=LABELLED),
    FeatureFilter(density=Range(0.3, None)),
]
"""Every kind of filter, alone and with others."""


class Feature(NamedTuple):
    """One feature as the tests compare it."""

    number: int
    density: float
    maximum: float | None
    mean: float | None
    std: float | None
    flags: frozenset[str]
    label: str | None
    mark: str | None
    note: str | None

    def value(self, sort: str) -> Any:
        """What a list is sorted by; None if the feature does not have it."""
        if sort == "flags":
            return len(self.flags) or None
        return float(self.number) if sort == "number" else getattr(self, sort)

    def is_wanted(self, wanted: FeatureFilter) -> bool:
        """Whether a filter lets it pass, read off the filter's description."""
        ranges = (("density", wanted.density), ("maximum", wanted.maximum), ("mean", wanted.mean), ("std", wanted.std))
        labelled = (
            (self.label or self.mark or self.note) is not None
            if wanted.label == LABELLED
            else self.mark == wanted.label
        )
        return (
            all(self._within(name, limits) for name, limits in ranges)
            and set(wanted.flags) <= self.flags
            and (wanted.label is None or labelled)
        )

    def _within(self, name: str, limits: Range) -> bool:
        if limits.is_open:
            return True
        value = getattr(self, name)
        if value is None or (name == "density" and self.maximum is None):
            return False
        low, high = limits
        return (low is None or value >= low) and (high is None or value < high)


def make_features(count: int = 120, seed: int = 0) -> list[Feature]:
    """Features of few values, on edges of bins and between them; every ninth never fires."""
    random_ = random.Random(seed)
    made = []
    for number in range(count):
        fires = number % 9 != 4
        known = fires and number % 7 != 3  # a chunk of an earlier version has no standard deviation
        made.append(
            Feature(
                number,
                random_.choice((1e-4, 0.001, 0.0013, 0.01, 0.25)) if fires else 0.0,
                random_.choice((0.5, 1.0, 4.0, 7.3)) if fires else None,
                random_.choice((0.25, 0.3)) if fires else None,
                random_.choice((0.1, 0.2)) if known else None,
                frozenset(flag for flag in FLAGS if random_.random() < 0.2),
                f"label {number}" if number % 10 == 0 else None,
                random_.choice(MARKS) if number % 6 == 0 else None,
                f"note {number}" if number % 25 == 7 else None,
            )
        )
    return made


MADE = make_features()


def store_features(engine: sa.Engine, made: list[Feature]) -> Listing:
    """The features as those of an extraction of their own; a listing of all of them."""
    with write_transaction(engine) as connection:
        extraction_id = _extraction(connection, len(made))
        store_rows(connection, features, [_row(extraction_id, one) for one in made])
        flags = [(one.number, flag) for one in made for flag in one.flags]
        rows = [{"extraction_id": extraction_id, "flag": flag, "neuron_index": number} for number, flag in flags]
        store_rows(connection, feature_flags, rows)
        named = {"name": NAME, "sae": SAE, "updated_at": dt.datetime.now(dt.UTC)}
        labelled = [
            {**named, "neuron_index": one.number, "label": one.label, "mark": one.mark, "note": one.note}
            for one in made
            if one.label or one.mark or one.note
        ]
        connection.execute(sa.insert(feature_labels), labelled)
    return Listing(extraction_id, NAME, SAE)


def _row(extraction_id: int, one: Feature) -> dict[str, Any]:
    fires = one.maximum is not None
    return {
        "extraction_id": extraction_id,
        "neuron_index": one.number,
        "activation_count": int(fires),
        "activation_frequency": one.density,
        "token_count": int(fires),
        "token_frequency": one.density,
        "max_activation": one.maximum,
        "mean_activation": one.mean,
        "std_activation": one.std,
        "histogram": [0] * 40,
        "density_bin": bin_of(one.density if fires else None, DENSITY_EDGES),
        "max_bin": bin_of(one.maximum, MAX_EDGES),
    }


def _extraction(connection: sa.Connection, latent_dim: int) -> int:
    now = dt.datetime.now(dt.UTC)
    texts = {"source": "by hand", "tokenizer": "none", "packing": "none", "fingerprint": "by hand"}
    corpus = {**texts, "sample_count": 1, "start_sample": 0}
    key = connection.execute(sa.insert(corpora).values(corpus)).inserted_primary_key
    assert key
    row = {
        "name": NAME,
        "sae": SAE,
        "corpus_id": key[0],
        "model": "m",
        "hook": "h",
        "latent_dim": latent_dim,
        "sample_count": 1,
        "token_count": 1,
        "max_length": 1,
        "top_k_examples": 1,
        "settings": {},
        "fingerprint": "by hand",
        "created_at": now,
        "finished_at": now,
    }
    key = connection.execute(sa.insert(extractions).values(row)).inserted_primary_key
    assert key
    return int(key[0])
