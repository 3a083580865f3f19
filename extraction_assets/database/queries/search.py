"""What a search finds: features by a token, by a text in their examples, or by what people have written about them.

Each search is a SELECT of (neuron_index, hits), each feature once, which ``feature_list`` narrows a list down with.
"""

import re
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.queries.texts import text_query
from extraction_assets.database.tables import SPACE, feature_labels, feature_tokens
from extraction_assets.database.views import sample_features, strongest_tokens
from extraction_assets.engine.corpora.visible_text import SIGNS

FoundBy = Literal["token", "text", "label"]
FOUND_BY: tuple[FoundBy, ...] = ("token", "text", "label")


class Wanted(NamedTuple):
    """What somebody typed: a feature's number, or a text to look for."""

    text: str
    number: int | None = None
    """Of ``#12``."""
    exact: bool = False
    """Whether spaces around a token count: it was in quotes of its own."""


def parse_search(typed: str) -> Wanted:
    """``#12`` is a number, ``' the'`` in quotes a token with its spaces, anything else a text; signs for line breaks
    and tabs stand for what they show."""
    number = re.fullmatch("#([0-9]{1,18})", typed.strip())
    if number:
        return Wanted(typed, int(number[1]))
    quoted = re.fullmatch(r"(['\"])(.+)\1", typed, re.DOTALL)
    text = quoted[2] if quoted else typed
    for character, sign in SIGNS.items():
        text = text.replace(sign, character)
    return Wanted(text, exact=quoted is not None)


def token_select(extraction_id: int, wanted: Wanted, *, counted: bool) -> sa.Select[Any]:
    """Features that fire on a token. ``counted``: that have it among their top tokens (``feature_relations``), with the
    number of firings; otherwise as the strongest token of one of their strongest examples, with the number of those.

    Case counts; a space before the word does not, unless the search is exact.
    """
    if counted:
        top = feature_tokens.c
        query = sa.select(top.neuron_index, sa.func.sum(top.count).label("hits")).where(
            top.extraction_id == extraction_id, top.place == "firing", top.token.in_(_spellings(wanted))
        )
        return query.group_by(top.neuron_index)
    strongest, word = strongest_tokens.c, wanted.text.strip(SPACE)
    exact = wanted.exact or not word
    query = sa.select(strongest.neuron_index, sa.func.sum(strongest.examples).label("hits")).where(
        strongest.extraction_id == extraction_id,
        strongest.token == wanted.text if exact else strongest.word == word,
    )
    return query.group_by(strongest.neuron_index)


def _spellings(wanted: Wanted) -> list[str]:
    """The tokens that a search means: as typed, with a space before it, and without any around it."""
    word = wanted.text.strip(SPACE)
    return [wanted.text] if wanted.exact or not word else list(dict.fromkeys([wanted.text, word, f" {word}"]))


def label_select(name: str, sae: str, wanted: Wanted) -> sa.Select[Any]:
    """Features with a text in their label, mark or note; case does not count."""
    stored = feature_labels.c
    holds = [column.icontains(wanted.text, autoescape=True) for column in (stored.label, stored.mark, stored.note)]
    query = sa.select(stored.neuron_index, sa.literal_column("1").label("hits"))
    return query.where(stored.name == name, stored.sae == sae, sa.or_(*holds))


def found_count_select(found: sa.Select[Any], about: str) -> sa.Select[Any]:
    """How many features a search finds."""
    return sa.select(sa.func.count()).select_from(found.subquery("found")).execution_options(about=about)


SHORTEST = 3
"""Characters that a text to look for has at least: fewer are no trigram."""

MOST_SAMPLES = 200
"""Samples with a text that are looked at: a frequent text stands in every one, which would read all examples."""


def text_select(
    connection: sa.Connection, extraction: sa.Row[Any], wanted: Wanted
) -> tuple[sa.Select[Any] | None, str | None]:
    """Features that fire in samples that hold a text, among the first ``MOST_SAMPLES`` of them, with how many they are;
    or None and why there is no such search."""
    if len(wanted.text) < SHORTEST:
        return None, f"a text to look for has at least {SHORTEST} characters"
    matching = text_query(connection, extraction.id, wanted.text, MOST_SAMPLES).subquery("matching")
    firing = sample_features.c
    query = (
        sa.select(firing.neuron_index, sa.func.count().label("hits"))
        .join_from(matching, sample_features, firing.sample_index == matching.c.sample_index)
        .where(firing.extraction_id == extraction.id)
        .group_by(firing.neuron_index)
    )
    return query, None
