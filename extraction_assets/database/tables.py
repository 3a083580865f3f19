"""Tables of the results database (SQLAlchemy Core). The schema itself is made and changed by Alembic migrations."""

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
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from extraction_assets.engine.selection.statistics.descriptions import COLUMNS

metadata = MetaData()

_BIG: TypeEngine[int] = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER
# float32 values are stored as doubles, in which every float32 is exact.
_POSITIONS = JSON().with_variant(postgresql.ARRAY(Integer), "postgresql")
_ACTIVATIONS = JSON().with_variant(postgresql.ARRAY(Double), "postgresql")
_IDS = JSON().with_variant(postgresql.ARRAY(Integer), "postgresql")
_TOKENS = JSON().with_variant(postgresql.ARRAY(Text), "postgresql")
_STATISTIC_TYPES: dict[str, type[TypeEngine[Any]]] = {"integer": BigInteger, "number": Double, "integers": JSON}

corpora = Table(
    "corpora",
    metadata,
    Column("id", _BIG, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("start_sample", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("tokenizer", Text, nullable=False),
    Column("packing", Text, nullable=False),
)

extractions = Table(
    "extractions",
    metadata,
    Column("id", _BIG, primary_key=True),
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
    UniqueConstraint("name", "sae"),
)

features = Table(
    "features",
    metadata,
    Column("extraction_id", BigInteger, ForeignKey("extractions.id"), primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    *(Column(one.name, _STATISTIC_TYPES[one.type], nullable=one.nullable) for one in COLUMNS),
)

# On PostgreSQL its rows stand in tables that inherit it: see examples_postgres.
feature_activations = Table(
    "feature_activations",
    metadata,
    # An extraction's id, without a foreign key: looking it up for every row would halve the rate of a load.
    Column("extraction_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("sample_index", BigInteger, nullable=False),
    Column("max_activation", Double, nullable=False),
    Column("max_token", Text, nullable=False),
    Column("positions", _POSITIONS, nullable=False),
    Column("activations", _ACTIVATIONS, nullable=False),
    Index("ix_feature_activations_sample", "extraction_id", "sample_index"),
    sqlite_with_rowid=False,
)

samples = Table(
    "samples",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpora.id"), primary_key=True),
    Column("sample_index", BigInteger, primary_key=True),
    Column("document_id", Text, nullable=False),
    Column("first_token", BigInteger, nullable=False),
    Column("token_ids", _IDS, nullable=False),
    Column("tokens", _TOKENS, nullable=False),
)
