"""What a search finds: features by a token, by a text in their examples, or by what people have written about them.

Each search gives the SELECTs of a ``Found``, which ``feature_filter`` narrows a list down with.
"""

import json
import re
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.queries.feature_filter import Found, no_index
from extraction_assets.database.queries.texts import text_query
from extraction_assets.database.tables import SPACE, feature_labels, feature_tokens, features
from extraction_assets.database.views import sample_features, strongest_tokens
from extraction_assets.engine.corpora.visible_text import SIGNS

FoundBy = Literal["token", "text", "label"]
FOUND_BY: tuple[FoundBy, ...] = ("token", "text", "label")


class SearchTerm(NamedTuple):
    """What somebody typed: a feature's number, or a text to look for."""

    text: str
    number: int | None = None
    """Of ``#12``."""
    exact: bool = False
    """Whether spaces around a token count: it was in quotes of its own."""


def parse_search(typed: str) -> SearchTerm:
    """``#12`` is a number, ``' the'`` in quotes a token with its spaces, anything else a text; signs for line breaks
    and tabs stand for what they show."""
    number = re.fullmatch("#([0-9]{1,18})", typed.strip())
    if number:
        return SearchTerm(typed, int(number[1]))
    quoted = re.fullmatch(r"(['\"])(.+)\1", typed, re.DOTALL)
    text = quoted[2] if quoted else typed
    for character, sign in SIGNS.items():
        text = text.replace(sign, character)
    return SearchTerm(text, exact=quoted is not None)


def token_found(extraction_id: int, wanted: SearchTerm, *, counted: bool) -> Found:
    """Features that fire on a token. ``counted``: that have it among their top tokens (``feature_relations``), with the
    number of firings; otherwise as the strongest token of one of their strongest examples, with the number of those.

    Case counts; a space before the word does not, unless the search is exact.
    """
    if not counted:
        return _strongest_found(extraction_id, wanted)
    top, spellings = feature_tokens.c, _spellings(wanted)
    is_token = (top.extraction_id == extraction_id, top.place == "firing", top.token.in_(spellings))
    # Not the bare column: SQLite would group by reading the whole table in its order.
    number = no_index(top.neuron_index).label("neuron_index")
    hits = sa.select(number, sa.func.sum(top.count).label("hits")).where(*is_token).group_by(number)
    same = feature_tokens.alias("same")
    looked_up = (same.c.extraction_id == extraction_id, same.c.place == "firing", same.c.token.in_(spellings))
    holds = sa.exists().where(same.c.neuron_index == features.c.neuron_index, *looked_up)
    return Found(hits, top.neuron_index, sa.select(top.neuron_index).where(*is_token), holds)


def _strongest_found(extraction_id: int, wanted: SearchTerm) -> Found:
    strongest, word = strongest_tokens.c, wanted.text.strip(SPACE)
    exact = wanted.exact or not word
    is_token = strongest.token == wanted.text if exact else strongest.word == word
    number = strongest.neuron_index
    of_token = (strongest.extraction_id == extraction_id, is_token)
    hits = sa.select(number, sa.func.sum(strongest.examples).label("hits")).where(*of_token).group_by(number)
    return Found(hits, number, sa.select(number).where(*of_token))


def _spellings(wanted: SearchTerm) -> list[str]:
    """The tokens that a search means: as typed, with a space before it, and without any around it."""
    word = wanted.text.strip(SPACE)
    return [wanted.text] if wanted.exact or not word else list(dict.fromkeys([wanted.text, word, f" {word}"]))


def label_found(name: str, sae: str, wanted: SearchTerm) -> Found:
    """Features with a text in their label, mark or note; case does not count."""
    stored = feature_labels.c
    holds = [column.icontains(wanted.text, autoescape=True) for column in (stored.label, stored.mark, stored.note)]
    query = sa.select(stored.neuron_index).where(stored.name == name, stored.sae == sae, sa.or_(*holds))
    return Found(query.add_columns(sa.literal_column("1").label("hits")), query.selected_columns[0], query)


def number_found(extraction_id: int, number: int) -> Found:
    """The feature of a number; nothing if no feature has it."""
    column = features.c
    query = sa.select(column.neuron_index).where(column.extraction_id == extraction_id, column.neuron_index == number)
    return Found(query.add_columns(sa.literal_column("1").label("hits")), query.selected_columns[0], query)


def count_select(found: Found, about: str) -> sa.Select[Any]:
    """How many features a search finds."""
    number = found.members.subquery("found").c.neuron_index
    return sa.select(sa.func.count(number.distinct())).execution_options(about=about)


def any_select(found: Found, about: str) -> sa.Select[Any]:
    """Whether a search finds a feature."""
    return sa.select(found.members.exists()).execution_options(about=about)


SHORTEST = 3
"""Characters that a text to look for has at least: fewer are no trigram."""

MOST_SAMPLES, MOST_FEATURES = 100, 1_000
"""Samples with a text that are looked at, and features that fire in most of them: a frequent text stands in every
sample, which would read all examples."""


class TextFound(NamedTuple):
    """What a search for a text finds."""

    found: Found | None
    missing: str | None = None
    """Why there is no such search."""
    is_cut: bool = False
    """Whether further features fire in samples with the text."""


def text_found(connection: sa.Connection, extraction: sa.Row[Any], wanted: SearchTerm) -> TextFound:
    """Features that fire in samples that hold a text: at most ``MOST_FEATURES``, of the first ``MOST_SAMPLES`` samples,
    with how many of those they are."""
    if len(wanted.text) < SHORTEST:
        return TextFound(None, f"a text to look for has at least {SHORTEST} characters")
    rows = [list(row) for row in connection.execute(text_select(connection, extraction.id, wanted.text))]
    number, hits = backend_of(connection).number_pairs(json.dumps(rows[:MOST_FEATURES]))
    members = sa.select(number.label("neuron_index"))
    return TextFound(Found(members.add_columns(hits.label("hits")), number, members), is_cut=len(rows) > MOST_FEATURES)


def text_select(connection: sa.Connection, extraction_id: int, text: str) -> sa.Select[Any]:
    """(neuron_index, hits) of the features that fire in most of the first samples that hold a text, and of one more."""
    matching = text_query(connection, extraction_id, text, MOST_SAMPLES).subquery("matching")
    firing = sample_features.c
    hits = sa.func.count().label("hits")
    return (
        sa.select(firing.neuron_index, hits)
        .join_from(matching, sample_features, firing.sample_index == matching.c.sample_index)
        .where(firing.extraction_id == extraction_id)
        .group_by(firing.neuron_index)
        .order_by(hits.desc(), firing.neuron_index)
        .limit(MOST_FEATURES + 1)
        .execution_options(about="features that fire in samples with the text")
    )
