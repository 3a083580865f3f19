"""Queries of the results database for people and pages. Results are pandas frames or plain named tuples."""

import datetime as dt
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import extractions, feature_activations, features, sample_messages, samples
from extraction_assets.engine.corpora.message_spans import MessageSpan
from extraction_assets.engine.selection.statistics.descriptions import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

LOOKED_AT = 20
"""How many of a feature's strongest examples say what it fires on: reading them all would read the whole table."""

_SPACE = " \n\t\r"


class Example(NamedTuple):
    """One example of a feature with the sample it stands in."""

    rank: int
    sample_index: int
    max_activation: float
    max_token: str
    document_id: str
    first_token: int
    tokens: list[str]
    """One display string for each token of the sample."""
    positions: list[int]
    """Positions of the firings, strongest first."""
    activations: list[float]
    messages: tuple[MessageSpan, ...] = ()
    """Who speaks where, by position; nothing if the corpus holds no chats."""


class Merge(NamedTuple):
    """What the database has of one (extraction, SAE)."""

    finished_at: dt.datetime
    """In UTC."""
    hook: str
    """What the SAE read."""


class UnknownResultError(LookupError):
    """No such extraction, SAE or feature in the database; the message lists those that exist."""


def list_extractions(connection: sa.Connection) -> "pd.DataFrame":
    """One row for each merged (extraction, SAE)."""
    columns = [extractions.c[name] for name in _LISTED]
    return _frame(connection, sa.select(*columns).order_by(extractions.c.name, extractions.c.sae))


_LISTED = (
    "id",
    "name",
    "sae",
    "hook",
    "latent_dim",
    "sample_count",
    "token_count",
    "top_k_examples",
    "finished_at",
)


def merges(connection: sa.Connection) -> dict[tuple[str, str], Merge]:
    """The last merge of each (extraction, SAE)."""
    query = sa.select(extractions.c.name, extractions.c.sae, extractions.c.finished_at, extractions.c.hook)
    return {(name, sae): Merge(finished, hook) for name, sae, finished, hook in connection.execute(query)}


def merge_fingerprints(connection: sa.Connection) -> dict[tuple[str, str], str]:
    """Fingerprint of what is merged of each (extraction, SAE)."""
    query = sa.select(extractions.c.name, extractions.c.sae, extractions.c.fingerprint)
    return {(name, sae): fingerprint for name, sae, fingerprint in connection.execute(query)}


def find_extraction(connection: sa.Connection, name: str, sae: str | None = None) -> sa.Row[Any]:
    """The row of an (extraction, SAE); ``sae`` may be left out where there is one. Raises UnknownResultError."""
    rows = connection.execute(sa.select(extractions).where(extractions.c.name == name)).all()
    if not rows:
        raise UnknownResultError(f"no merged results of extraction {name!r}: run it first")
    chosen = [row for row in rows if sae in (None, row.sae)]
    if len(chosen) != 1:
        names = ", ".join(sorted(row.sae for row in rows))
        raise UnknownResultError(f"choose one SAE of extraction {name!r}: {names}" + (f" (not {sae!r})" if sae else ""))
    return chosen[0]


def feature_table(connection: sa.Connection, extraction_id: int) -> "pd.DataFrame":
    """Statistics of every feature, by ``neuron_index``; those that are lists (the histogram) left out.

    One that was added later is NULL while a chunk is of an earlier version: ``unknown_sizes`` says so.
    """
    lists = {column.name for column in COLUMNS if column.type == "integers"}
    columns = [column for column in features.c if column.name not in ("extraction_id", *lists)]
    query = sa.select(*columns).where(features.c.extraction_id == extraction_id).order_by(features.c.neuron_index)
    return _frame(connection, query).set_index("neuron_index")


def example_counts(connection: sa.Connection, extraction_id: int) -> "pd.Series[int]":
    """Number of stored examples by ``neuron_index``; features without any are left out."""
    fa = feature_activations.c
    query = (
        sa.select(fa.neuron_index, sa.func.count().label("examples"))
        .where(fa.extraction_id == extraction_id)
        .group_by(fa.neuron_index)
    )
    return _frame(connection, query).set_index("neuron_index")["examples"]


def find_feature(connection: sa.Connection, extraction_id: int, neuron_index: int) -> sa.Row[Any]:
    """Statistics of one feature. Raises UnknownResultError."""
    of_feature = (features.c.extraction_id == extraction_id) & (features.c.neuron_index == neuron_index)
    storable = 0 <= neuron_index < 2**63
    row = connection.execute(sa.select(features).where(of_feature)).one_or_none() if storable else None
    if row is None:
        query = sa.select(extractions.c.latent_dim).where(extractions.c.id == extraction_id)
        last = (connection.scalar(query) or 0) - 1
        raise UnknownResultError(f"no feature {neuron_index}: features are numbered from 0 to {last}")
    return row


def examples_of(connection: sa.Connection, extraction_id: int, neuron_index: int, limit: int = 10) -> list[Example]:
    """The strongest examples of a feature, with their samples."""
    fa, names = feature_activations.c, [name for name in Example._fields if name != "messages"]
    source = feature_activations.join(extractions, extractions.c.id == fa.extraction_id).join(
        samples,
        (samples.c.corpus_id == extractions.c.corpus_id) & (samples.c.sample_index == fa.sample_index),
    )
    columns = [samples.c[n] if n in ("document_id", "first_token", "tokens") else fa[n] for n in names]
    query = (
        sa.select(*columns)
        .select_from(source)
        .where(fa.extraction_id == extraction_id, fa.neuron_index == neuron_index)
        .order_by(fa.rank)
        .limit(limit)
    )
    found = [Example(*row) for row in connection.execute(query)]
    said = _messages_of(connection, extraction_id, neuron_index, limit)
    return [example._replace(messages=tuple(said.get(example.sample_index, ()))) for example in found]


def _messages_of(
    connection: sa.Connection, extraction_id: int, neuron_index: int, limit: int
) -> dict[int, list[MessageSpan]]:
    """The messages of a feature's strongest examples by ``sample_index``."""
    fa, said = feature_activations.c, sample_messages.c
    query = (
        sa.select(said.sample_index, said.role, said.start, said.stop)
        .select_from(_examples_with_messages())
        .where(fa.extraction_id == extraction_id, fa.neuron_index == neuron_index, fa.rank < limit)
        .order_by(said.sample_index, said.number)
    )
    found: dict[int, list[MessageSpan]] = {}
    for sample_index, *span in connection.execute(query):
        found.setdefault(sample_index, []).append(MessageSpan(*span))
    return found


def _examples_with_messages() -> sa.Join:
    """Examples, once for each message of their sample."""
    fa, said = feature_activations.c, sample_messages.c
    return feature_activations.join(extractions, extractions.c.id == fa.extraction_id).join(
        sample_messages, (said.corpus_id == extractions.c.corpus_id) & (said.sample_index == fa.sample_index)
    )


def role_counts(connection: sa.Connection, extraction_id: int) -> "pd.DataFrame":
    """How many of each feature's ``LOOKED_AT`` strongest examples have their strongest token in a message of each role.

    A column a role, by ``neuron_index``. Tokens that the chat template writes between the messages are of no role, and
    features without an example of any are left out. Without columns if the corpus holds no chats.
    """
    fa, said = feature_activations.c, sample_messages.c
    strongest = backend_of(connection).first_of_list(fa.positions)
    query = (
        sa.select(fa.neuron_index, said.role, sa.func.count().label("examples"))
        .select_from(_examples_with_messages())
        .where(*_strongest(extraction_id), said.start <= strongest, strongest < said.stop)
        .group_by(fa.neuron_index, said.role)
        .order_by(fa.neuron_index, said.role)
    )
    found = _frame(connection, query)
    return found.pivot(index="neuron_index", columns="role", values="examples").fillna(0).astype(int)


def readable_features(connection: sa.Connection, extraction_id: int, count: int = 5) -> list[int]:
    """Features to begin reading with: those whose ``LOOKED_AT`` strongest examples agree most on one word.

    Features that fire in more than a fifth of the samples come last; of features that agree equally the one that
    fires more strongly comes first; no word is shown twice. Where words do not suffice, the strongest others follow.
    """
    fa = feature_activations.c
    chosen: dict[int, None] = {}
    shown_words = set[str]()
    for index, token in connection.execute(_agreed_tokens(extraction_id)):
        word = str(token).strip()
        if len(chosen) == count:
            break
        if len(word) >= 4 and word.isalpha() and word not in shown_words:
            shown_words.add(word)
            chosen.setdefault(int(index))
    strongest = (
        sa.select(fa.neuron_index)
        .where(fa.extraction_id == extraction_id, fa.rank == 0)
        .order_by(fa.max_activation.desc(), fa.neuron_index)
        .limit(count)  # so many are not among the chosen or are not needed
    )
    chosen.update(dict.fromkeys(map(int, connection.scalars(strongest))))
    return list(chosen)[:count]


def _agreed_tokens(extraction_id: int) -> sa.Select[Any]:
    """(neuron_index, max_token) of every feature's ``LOOKED_AT`` strongest examples, each pair once: the features that
    fire in few samples first, then the tokens that most examples agree on."""
    fa = feature_activations.c
    of_feature = (features.c.extraction_id == fa.extraction_id) & (features.c.neuron_index == fa.neuron_index)
    return (
        sa.select(fa.neuron_index, fa.max_token)
        .select_from(feature_activations.join(features, of_feature))
        .where(*_strongest(extraction_id))
        .group_by(fa.neuron_index, fa.max_token, features.c.activation_frequency, features.c.max_activation)
        .order_by(
            features.c.activation_frequency > 0.2,
            sa.func.count().desc(),
            features.c.max_activation.desc(),
            fa.neuron_index,
            fa.max_token,
        )
    )


def features_of_token(connection: sa.Connection, extraction_id: int, token: str, *, exact: bool = False) -> list[int]:
    """Features that fire most strongly on a token: those with it as the strongest token of one of their ``LOOKED_AT``
    strongest examples. First the features with the most such examples, then the larger activation, the lower index.

    Case counts; spaces and line breaks around the word do not, unless ``exact`` (or where there is nothing else).
    Raises UnknownResultError, which lists similar words, if there is none, and if the text cannot be a token.
    """
    _refuse_no_token(token)
    fa, word = feature_activations.c, token.strip(_SPACE)
    is_token = fa.max_token == token if exact or not word else _word(fa.max_token) == word
    query = (
        sa.select(fa.neuron_index)
        .where(*_strongest(extraction_id), is_token)
        .group_by(fa.neuron_index)
        .order_by(sa.func.count().desc(), sa.func.max(fa.max_activation).desc(), fa.neuron_index)
    )
    found = [int(index) for index in connection.scalars(query)]
    if not found:
        near = _near_words(connection, extraction_id, word)
        raise UnknownResultError(
            f"no feature has {token!r} as the strongest token of one of its {LOOKED_AT} strongest examples"
            + (f"; there are {', '.join(map(repr, near))}" if near else "")
        )
    return found


def _refuse_no_token(token: str) -> None:
    if not token:
        raise UnknownResultError(
            "a token has at least one character; leave it out to see features that are easy to read"
        )
    try:
        token.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are not UTF-8
        raise UnknownResultError(f"{token!r} is not UTF-8 text, so that no token is like it") from error


def _strongest(extraction_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions for the ``LOOKED_AT`` strongest examples of every feature, which the primary key finds: SQLite uses
    all of it only where it knows the features."""
    fa = feature_activations.c
    indices = sa.select(features.c.neuron_index).where(features.c.extraction_id == extraction_id)
    return fa.extraction_id == extraction_id, fa.neuron_index.in_(indices), fa.rank < LOOKED_AT


def _word(token: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    return sa.func.trim(token, _SPACE, type_=sa.Text)


def _near_words(connection: sa.Connection, extraction_id: int, word: str) -> list[str]:
    """Strongest tokens of features that differ from a word in case, else those that are spelled nearly like it."""
    fa = feature_activations.c
    query = sa.select(_word(fa.max_token)).where(*_strongest(extraction_id), fa.rank == 0).distinct()
    words = sorted(connection.scalars(query))
    same = [one for one in words if one.casefold() == word.casefold()]
    return same or get_close_matches(word, words, n=3)


def _frame(connection: sa.Connection, query: sa.Select[Any]) -> "pd.DataFrame":
    import pandas as pd  # a command that shows one feature does not need all

    result = connection.execute(query)
    return pd.DataFrame(result.all(), columns=list(result.keys()))
