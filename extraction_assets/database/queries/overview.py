"""A whole result at a glance: shares of its features, and features that are worth a look, with the reason."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.queries.words import readable_features
from extraction_assets.database.tables import LOOKED_AT, feature_flags, features
from extraction_assets.database.views import feature_activations

DENSE = 0.1
"""A feature that fires on more than this share of the counted tokens is called dense."""

RARE_SAMPLES = 10
DRAWN = 400
"""Features that are looked at for unclear ones: reading the examples of all would read the whole table."""
_OFTEN = 0.2
"""Share of the samples above which a feature is not called unclear: it is dense, and what is dense is seldom clear."""


class Shares(NamedTuple):
    """How many features of an SAE there are of each kind."""

    features: int
    dead: int
    """Those that never fire."""
    dense: int
    """Those that fire on more than ``DENSE`` of the tokens."""


class Noted(NamedTuple):
    """A feature that is worth a look."""

    neuron_index: int
    why: str


class NotedGroup(NamedTuple):
    """Features that are worth a look for one kind of reason."""

    title: str
    about: str
    """How they were chosen."""
    features: list[Noted]


def shares_select(extraction_id: int) -> sa.Select[Any]:
    """(features, dead, dense) of an SAE, each counted in an index."""
    c = features.c
    conditions = {"features": sa.true(), "dead": c.token_frequency == 0, "dense": c.token_frequency > DENSE}
    counts = (
        sa.select(sa.func.count())
        .select_from(features)
        .where(c.extraction_id == extraction_id, condition)
        .scalar_subquery()
        .label(name)
        for name, condition in conditions.items()
    )
    return sa.select(*counts)


def shares(connection: sa.Connection, extraction_id: int) -> Shares:
    """How many features never fire, and how many fire on more than ``DENSE`` of the tokens."""
    return Shares(*map(int, connection.execute(shares_select(extraction_id)).one()))


def firing_select(extraction_id: int) -> sa.Select[Any]:
    """``neuron_index`` of the features that fire, in their order."""
    c = features.c
    fires = sa.select(c.neuron_index).where(c.extraction_id == extraction_id, c.token_count > 0)
    return fires.order_by(c.neuron_index)


def worth_a_look(connection: sa.Connection, extraction_id: int, count: int = 8) -> list[NotedGroup]:
    """Up to ``count`` features of each kind; a kind without any is left out."""
    groups = [
        _clear(connection, extraction_id, count),
        _unclear(connection, extraction_id, count),
        _dense(connection, extraction_id, count),
        _rare(connection, extraction_id, count),
        _peaked(connection, extraction_id, count),
    ]
    return [group for group in groups if group.features]


def _clear(connection: sa.Connection, extraction_id: int, count: int) -> NotedGroup:
    chosen = readable_features(connection, extraction_id, count)
    tokens = _strongest_tokens(connection, extraction_id, chosen)
    noted = [Noted(index, _agreement(tokens.get(index, []))) for index in chosen]
    return NotedGroup("Clear", f"their {LOOKED_AT} strongest examples agree most on one word", noted)


def _unclear(connection: sa.Connection, extraction_id: int, count: int) -> NotedGroup:
    c = features.c
    query = sa.select(c.neuron_index).where(
        c.extraction_id == extraction_id, c.activation_count >= LOOKED_AT, c.activation_frequency <= _OFTEN
    )
    candidates = sorted(connection.scalars(query))
    drawn = sorted(random.Random(0).sample(candidates, min(DRAWN, len(candidates))))
    tokens = _strongest_tokens(connection, extraction_id, drawn)
    different = {index: len(set(found)) for index, found in tokens.items() if len(found) == LOOKED_AT}
    chosen = sorted(different, key=lambda index: (-different[index], index))[:count]
    noted = [
        Noted(index, f"{different[index]} different tokens in its {LOOKED_AT} strongest examples")
        for index in chosen
        if different[index] > 1
    ]
    of = f"of {len(drawn)} features drawn by a fixed seed" if len(drawn) < len(candidates) else "of all features"
    return NotedGroup("Unclear", f"{of}, those whose strongest examples agree least on a token", noted)


def _dense(connection: sa.Connection, extraction_id: int, count: int) -> NotedGroup:
    c = features.c
    rows = connection.execute(
        sa.select(c.neuron_index, c.token_frequency)
        .where(c.extraction_id == extraction_id, c.token_frequency > DENSE)
        .order_by(c.token_frequency.desc(), c.neuron_index)
        .limit(count)
    )
    noted = [Noted(index, f"fires on {frequency:.1%} of the tokens") for index, frequency in rows]
    return NotedGroup("Dense", f"they fire on more than {DENSE:.0%} of the tokens, the densest first", noted)


def _rare(connection: sa.Connection, extraction_id: int, count: int) -> NotedGroup:
    c = features.c
    rows = connection.execute(
        sa.select(c.neuron_index, c.activation_count, c.max_activation)
        .where(c.extraction_id == extraction_id, c.activation_count.between(1, RARE_SAMPLES))
        .order_by(c.max_activation.desc(), c.neuron_index)
        .limit(count)
    )
    noted = [
        Noted(index, f"fires in {samples} sample{'' if samples == 1 else 's'}, up to {maximum:.3g}")
        for index, samples, maximum in rows
    ]
    return NotedGroup("Rare and strong", f"they fire in {RARE_SAMPLES} samples or fewer, the strongest first", noted)


def _peaked(connection: sa.Connection, extraction_id: int, count: int) -> NotedGroup:
    c = features.c
    ratio = c.max_activation / sa.func.nullif(c.mean_activation, 0)
    rows = connection.execute(
        sa.select(c.neuron_index, ratio)
        .where(c.extraction_id == extraction_id, c.activation_count > RARE_SAMPLES, c.mean_activation > 0)
        .order_by(ratio.desc(), c.neuron_index)
        .limit(count)
    )
    noted = [Noted(index, f"its maximum is {times:.0f} times its mean") for index, times in rows]
    return NotedGroup("Peaked", "their maximum is far above the mean of their firings", noted)


def _strongest_tokens(connection: sa.Connection, extraction_id: int, indices: Sequence[int]) -> dict[int, list[str]]:
    """The strongest tokens of some features' ``LOOKED_AT`` strongest examples."""
    fa = feature_activations.c
    found: dict[int, list[str]] = {}
    query = sa.select(fa.neuron_index, fa.max_token).where(
        fa.extraction_id == extraction_id, fa.neuron_index.in_(indices), fa.rank < LOOKED_AT
    )
    for index, token in connection.execute(query):
        found.setdefault(int(index), []).append(str(token))
    return found


def _agreement(tokens: list[str]) -> str:
    words = [token.strip() for token in tokens]
    word = max(dict.fromkeys(words), key=words.count, default="")
    return f"{words.count(word)} of its {len(words)} strongest examples are on “{word}”"


def flagged_select(extraction_id: int, flag: str, count: int) -> sa.Select[Any]:
    """(neuron_index, detail) of features with a flag, the strongest first."""
    c, flags = features.c, feature_flags.c
    of_feature = (c.extraction_id == flags.extraction_id) & (c.neuron_index == flags.neuron_index)
    return (
        sa.select(flags.neuron_index, flags.detail)
        .select_from(feature_flags.join(features, of_feature))
        .where(flags.extraction_id == extraction_id, flags.flag == flag)
        .order_by(c.max_activation.desc(), flags.neuron_index)
        .limit(count)
    )
