"""Features by the words on which they fire most strongly."""

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from extraction_assets.database.queries.extractions import UnknownResultError
from extraction_assets.database.queries.frames import frame
from extraction_assets.database.queries.relations import find_relations
from extraction_assets.database.queries.search import SearchTerm, token_found
from extraction_assets.database.tables import (
    LOOKED_AT,
    SPACE,
    feature_example_lists,
    feature_roles,
    features,
    strongest_token_lists,
)
from extraction_assets.database.views import strongest_tokens

if TYPE_CHECKING:
    import pandas as pd


def role_counts(connection: sa.Connection, extraction_id: int) -> "pd.DataFrame":
    """How many of each feature's ``LOOKED_AT`` strongest examples have their strongest token in a message of each role.

    A column a role, by ``neuron_index``. Tokens that the chat template writes between the messages are of no role, and
    features without an example of any are left out. Without columns if the corpus holds no chats.
    """
    roles = feature_roles.c
    query = sa.select(roles.neuron_index, roles.role, roles.examples).where(roles.extraction_id == extraction_id)
    found = frame(connection, query.order_by(roles.neuron_index, roles.role))
    return found.pivot(index="neuron_index", columns="role", values="examples").fillna(0).astype(int)


def role_query(extraction_id: int, role: str, limit: int = 100) -> sa.Select[Any]:
    """(neuron_index, examples) of the features with the most examples in messages of a role."""
    roles = feature_roles.c
    return (
        sa.select(roles.neuron_index, roles.examples)
        .where(roles.extraction_id == extraction_id, roles.role == role)
        .order_by(roles.examples.desc(), roles.neuron_index)
        .limit(limit)
    )


def readable_features(connection: sa.Connection, extraction_id: int, count: int = 5) -> list[int]:
    """Features to begin reading with: those whose ``LOOKED_AT`` strongest examples agree most on one word.

    Features that fire in more than a fifth of the samples come last; of features that agree equally the one that
    fires more strongly comes first; no word is shown twice. Where words do not suffice, the strongest others follow.
    """
    chosen: dict[int, None] = {}
    shown_words = set[str]()
    for index, token in connection.execute(agreed_tokens_query(extraction_id)):
        word = str(token).strip()
        if len(chosen) == count:
            break
        if len(word) >= 4 and word.isalpha() and word not in shown_words:
            shown_words.add(word)
            chosen.setdefault(int(index))
    if len(chosen) < count:
        # So many are not among the chosen or are not needed.
        chosen.update(dict.fromkeys(map(int, connection.scalars(strongest_query(extraction_id, count)))))
    return list(chosen)[:count]


def agreed_tokens_query(extraction_id: int) -> sa.Select[Any]:
    """(neuron_index, token): each strongest token with the feature that is best to read of those that have it, in the
    order of how good: the features that fire in few samples first, then those that agree on it in most examples."""
    stored = strongest_token_lists.c
    best = sa.select(
        stored.token,
        stored.features[0, 0].as_integer().label("neuron_index"),
        stored.features[0, 1].as_integer().label("examples"),
    ).where(stored.extraction_id == extraction_id)
    found = best.cte("best")
    return (
        sa.select(found.c.neuron_index, found.c.token)
        .join(features, (features.c.extraction_id == extraction_id) & (features.c.neuron_index == found.c.neuron_index))
        .order_by(
            features.c.activation_frequency > 0.2,
            found.c.examples.desc(),
            features.c.max_activation.desc(),
            found.c.neuron_index,
            found.c.token,
        )
    )


def strongest_query(extraction_id: int, count: int) -> sa.Select[Any]:
    """The features with the largest maxima among those that have examples."""
    stored = feature_example_lists.c
    has_examples = sa.exists().where(
        stored.extraction_id == extraction_id, stored.neuron_index == features.c.neuron_index
    )
    return (
        sa.select(features.c.neuron_index)
        .where(features.c.extraction_id == extraction_id, features.c.max_activation.is_not(None), has_examples)
        .order_by(features.c.max_activation.desc(), features.c.neuron_index)
        .limit(count)
    )


def features_of_token(connection: sa.Connection, extraction_id: int, token: str, *, exact: bool = False) -> list[int]:
    """Features that fire most strongly on a token: those with it as the strongest token of one of their ``LOOKED_AT``
    strongest examples. First the features with the most such examples, then the larger activation, the lower index.

    Case counts; spaces and line breaks around the word do not, unless ``exact`` (or where there is nothing else).
    Raises UnknownResultError, which lists similar words, if no feature does, and if the text cannot be a token.
    """
    _refuse_no_token(token)
    found = [int(index) for index in connection.scalars(token_query(extraction_id, token, exact=exact))]
    if not found:
        near = _near_words(connection, extraction_id, token.strip(SPACE))
        raise UnknownResultError(
            f"no feature has {token!r} as the strongest token of one of its {LOOKED_AT} strongest examples"
            + (f"; there are {', '.join(map(repr, near))}" if near else "")
        )
    return found


def features_firing_on(connection: sa.Connection, extraction_id: int, token: str, *, exact: bool = False) -> list[int]:
    """Features that have a token among those on which they fire most often in the corpus (``feature_relations``): those
    with the most firings on it first. None where that is not computed for the current result."""
    if find_relations(connection, extraction_id) is None:
        return []
    found = token_found(extraction_id, SearchTerm(token, exact=exact), counted=True).hits.subquery("found").c
    query = sa.select(found.neuron_index).order_by(found.hits.desc(), found.neuron_index)
    return [int(index) for index in connection.scalars(query)]


def token_query(extraction_id: int, token: str, *, exact: bool = False) -> sa.Select[Any]:
    """``neuron_index`` of the features that ``features_of_token`` finds, in its order."""
    st, word = strongest_tokens.c, token.strip(SPACE)
    return (
        sa.select(st.neuron_index)
        .where(st.extraction_id == extraction_id, st.token == token if exact or not word else st.word == word)
        .group_by(st.neuron_index)
        .order_by(sa.func.sum(st.examples).desc(), sa.func.max(st.max_activation).desc(), st.neuron_index)
    )


def _refuse_no_token(token: str) -> None:
    if not token:
        raise UnknownResultError(
            "a token has at least one character; leave it out to see features that are easy to read"
        )
    try:
        token.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are not UTF-8
        raise UnknownResultError(f"{token!r} is not UTF-8 text, so that no token is like it") from error


def _near_words(connection: sa.Connection, extraction_id: int, word: str) -> list[str]:
    """Strongest tokens of features that differ from a word in case, else those that are spelled nearly like it."""
    stored = strongest_token_lists.c
    query = sa.select(stored.word).where(stored.extraction_id == extraction_id).distinct()
    words = sorted(connection.scalars(query))
    same = [one for one in words if one.casefold() == word.casefold()]
    return same or get_close_matches(word, words, n=3)
