"""Tables of the results database (SQLAlchemy Core). Alembic migrations create and change the schema.

What belongs to one feature, sample or token is one row, with a list in JSON: a load writes as few rows as it can. The
views of ``views.py`` show a row for each element of a list.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

from extraction_assets.database.backends import column_type
from extraction_assets.engine.statistics.registry import STATISTICS

metadata = MetaData()

_ROW_ID = column_type("row_id")
_INTEGERS, _TEXTS, _JSON = column_type("integers"), column_type("texts"), column_type("json")
_STATISTIC_TYPES: dict[str, type[TypeEngine[Any]]] = {"integer": BigInteger, "number": Double, "integers": JSON}

corpora = Table(
    "corpora",
    metadata,
    Column("id", _ROW_ID, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("start_sample", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("tokenizer", Text, nullable=False),
    Column("packing", Text, nullable=False),
    # [token_id…] of the tokenizer's special tokens; NULL for what was merged before they were kept.
    Column("special_ids", JSON(none_as_null=True)),
)

extractions = Table(
    "extractions",
    metadata,
    Column("id", _ROW_ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sae", Text, nullable=False),
    Column("corpus_id", BigInteger, ForeignKey("corpora.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("hook", Text, nullable=False),
    Column("latent_dim", BigInteger, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("token_count", BigInteger, nullable=False),
    Column("max_length", Integer, nullable=False),
    Column("top_k_examples", Integer, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True), nullable=False),
    # The different numerics records of the chunks; NULL for what was merged before they were kept.
    Column("numerics", JSON(none_as_null=True)),
    UniqueConstraint("name", "sae"),
)

SORTED_BY = ("max_activation", "mean_activation", "std_activation", "token_frequency")
"""Columns of ``features`` that have an index with ``neuron_index`` behind, for pages by key; ``neuron_index`` itself
has the primary key."""

NUMBERS = ("token_frequency", *SORTED_BY[:3])
"""Columns that a list filters by, in two indexes that answer a filter, its counts and its plot alone, without reading a
row: one by the bins, and one by ``neuron_index`` for features that a search found or a flag has."""

_STATISTICS = [
    Column(column.name, _STATISTIC_TYPES[column.type], nullable=column.nullable or one.added_later)
    for one in STATISTICS
    for column in one.columns
]

features = Table(
    "features",
    metadata,
    Column("extraction_id", BigInteger, ForeignKey("extractions.id"), primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    *_STATISTICS,
    # Where a feature stands in the plot of density against maximum (``bins.py``); NULL for one that never fires.
    Column("density_bin", SmallInteger),
    Column("max_bin", SmallInteger),
    *(Index(f"ix_features_{name}", "extraction_id", name, "neuron_index") for name in SORTED_BY),
    Index("ix_features_bins", "extraction_id", "density_bin", "max_bin", "neuron_index", *NUMBERS),
    Index("ix_features_numbers", "extraction_id", "neuron_index", "density_bin", "max_bin", *NUMBERS),
)

# Lists are JSON as text; see the views of PostgreSQL for why.
# Tables below name an extraction without a foreign key: looking it up for every row would slow a load.

# [[sample_index, max_activation, max_token, [position…], [activation…]]…], strongest first: the place is the rank.
feature_example_lists = Table(
    "feature_example_lists",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("examples", JSON, nullable=False),
)

# [[interval, sample_index, max_activation, max_token, [position…], [activation…]]…]
feature_draw_lists = Table(
    "feature_draw_lists",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("draws", JSON, nullable=False),
)

# [[neuron_index, max_activation]…] of examples and draws, strongest first.
sample_feature_lists = Table(
    "sample_feature_lists",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("sample_index", BigInteger, primary_key=True),
    Column("features", JSON, nullable=False),
)

LOOKED_AT = 20
"""How many of a feature's strongest examples say what it fires on."""

SPACE = " \n\t\r"
"""What does not count around a word."""

# [[neuron_index, examples, max_activation]…] of the features that have a token as the strongest of some of their first
# examples: those that fire in few samples first, then those with the most examples.
strongest_token_lists = Table(
    "strongest_token_lists",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("token", Text, primary_key=True),
    Column("word", Text, nullable=False),  # the token without the spaces around it
    Column("features", JSON, nullable=False),
    Index("ix_strongest_token_lists_word", "extraction_id", "word"),
)

# Of corpora of chats alone: how many of a feature's first examples have their strongest token in a message of a role.
feature_roles = Table(
    "feature_roles",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("examples", Integer, nullable=False),
    sqlite_with_rowid=False,
)

samples = Table(
    "samples",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpora.id"), primary_key=True),
    Column("sample_index", BigInteger, primary_key=True),
    Column("document_id", Text, nullable=False),
    Column("first_token", BigInteger, nullable=False),
    Column("token_ids", _INTEGERS, nullable=False),
    Column("tokens", _TEXTS, nullable=False),
    Index("ix_samples_document", "corpus_id", "document_id", "first_token"),
)

# Of corpora of chats alone: who speaks at positions start to stop - 1 of a sample.
sample_messages = Table(
    "sample_messages",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpora.id"), primary_key=True),
    Column("sample_index", BigInteger, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("role", Text, nullable=False),
    Column("start", Integer, nullable=False),
    Column("stop", Integer, nullable=False),
)

# What the relations of an extraction were computed from; of an earlier result if ``merge_fingerprint`` is not the
# extraction's fingerprint.
relations = Table(
    "relations",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False),
    Column("merge_fingerprint", Text, nullable=False),
    Column("scope", Text, nullable=False),  # 'sample' or 'corpus'
    Column("sample_one_in", Integer, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("token_count", BigInteger, nullable=False),
    Column("finished_at", DateTime(timezone=True), nullable=False),
)

feature_tokens = Table(
    "feature_tokens",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("place", Text, primary_key=True),  # 'firing' or 'next'
    Column("rank", Integer, primary_key=True),
    Column("token_id", BigInteger, nullable=False),
    Column("token", Text, nullable=False),  # as samples.tokens has it
    Column("count", BigInteger, nullable=False),
    Column("mean_activation", Double, nullable=False),
    Column("share", Double, nullable=False),  # of the token's occurrences among the counted positions looked at
    Index("ix_feature_tokens_token", "extraction_id", "place", "token", "count", "neuron_index"),
    sqlite_with_rowid=False,
)

# [[neuron_index, count, jaccard, pmi]…], largest jaccard first.
feature_neighbours = Table(
    "feature_neighbours",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("neighbours", _JSON, nullable=False),
    Column("tokens", BigInteger, nullable=False),  # on which the feature itself fires, in the scope
)

feature_flags = Table(
    "feature_flags",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("flag", Text, primary_key=True),  # dead, dense, duplicate, first_position, one_token
    Column("neuron_index", BigInteger, primary_key=True),
    Column("detail", _JSON),
    Index("ix_feature_flags_feature", "extraction_id", "neuron_index"),
    sqlite_with_rowid=False,
)

# [[kind, low, high, samples, draws]…]: what is asked for beside the fixed intervals, and of each the draws
# [[sample_index, max_activation, max_token, [position…], [activation…], first, [token…]]…], whose tokens around the
# strongest one begin at position ``first``.
feature_ranges = Table(
    "feature_ranges",
    metadata,
    Column("extraction_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("ranges", _JSON, nullable=False),
)

# What follows from the weights of an SAE and its model.
directions = Table(
    "directions",
    metadata,
    Column("id", _ROW_ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sae", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("norm", Text, nullable=False),
    Column("undefined", Text),  # why the logit lens is not defined
    Column("finished_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("name", "sae"),
)

# top, bottom: [[token_id, token, logit]…]; neighbours: [[sae, neuron_index, cosine]…].
feature_logits = Table(
    "feature_logits",
    metadata,
    Column("directions_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    *(Column(name, _JSON) for name in ("top", "bottom")),
    *(Column(name, Double) for name in ("mean", "std", "minimum", "maximum")),
    Column("histogram", _JSON),
    Column("neighbours", _JSON),
)

# What people write, by the names of extraction and SAE: no merge and no run touches it.
feature_labels = Table(
    "feature_labels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sae", Text, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("label", Text),
    Column("mark", Text),  # interesting, polysemantic, dead end
    Column("note", Text),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

OF_AN_EXTRACTION = (
    features,
    feature_example_lists,
    feature_draw_lists,
    sample_feature_lists,
    strongest_token_lists,
    feature_roles,
    relations,
    feature_tokens,
    feature_neighbours,
    feature_flags,
    feature_ranges,
)
"""Tables whose rows belong to one row of ``extractions``, by their ``extraction_id``."""
