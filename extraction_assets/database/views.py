"""Views of the results database: a row for each element of the lists that ``tables.py`` stores. They are
made with each backend's SQL."""

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of, column_type
from extraction_assets.database.float32 import Float32, Float32List

feature_activations = sa.table(
    "feature_activations",
    sa.column("extraction_id", sa.BigInteger),
    sa.column("neuron_index", sa.BigInteger),
    sa.column("rank", sa.Integer),
    sa.column("sample_index", sa.BigInteger),
    sa.column("max_activation", Float32),
    sa.column("max_token", sa.Text),
    sa.column("positions", column_type("integers")),
    sa.column("activations", Float32List),
)

feature_draws = sa.table(
    "feature_draws",
    sa.column("extraction_id", sa.BigInteger),
    sa.column("neuron_index", sa.BigInteger),
    sa.column("interval", sa.Integer),  # -1 for those drawn from all samples in which the feature fires
    sa.column("rank", sa.Integer),  # within the interval
    sa.column("sample_index", sa.BigInteger),
    sa.column("max_activation", Float32),
    sa.column("max_token", sa.Text),
    sa.column("positions", column_type("integers")),
    sa.column("activations", Float32List),
)

sample_features = sa.table(
    "sample_features",
    sa.column("extraction_id", sa.BigInteger),
    sa.column("sample_index", sa.BigInteger),
    sa.column("neuron_index", sa.BigInteger),
    sa.column("max_activation", Float32),
)

strongest_tokens = sa.table(
    "strongest_tokens",
    sa.column("extraction_id", sa.BigInteger),
    sa.column("token", sa.Text),
    sa.column("word", sa.Text),
    sa.column("neuron_index", sa.BigInteger),
    sa.column("examples", sa.Integer),
    sa.column("max_activation", Float32),
)


def create_views(connection: sa.Connection) -> None:
    """Make the views in a database that has the tables."""
    for name, query in backend_of(connection).views.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query}")
