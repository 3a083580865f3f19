"""What migration 0006 fills its tables with: lists of JSON from rows, each table in one statement."""

import json

import numpy as np
import sqlalchemy as sa

from extraction_assets.database.migrations.table_dependents import run_as_written

_TABLE = "feature_activations"

_EXAMPLES = {
    "sqlite": f"""
        INSERT INTO feature_example_lists SELECT extraction_id, neuron_index, '[' || group_concat(example) || ']' FROM (
            SELECT extraction_id, neuron_index, '[' || sample_index || ',' || float32_text(max_activation) || ','
                || json_quote(max_token) || ',' || positions || ',' || float32_texts(activations) || ']' AS example
            FROM {_TABLE} ORDER BY extraction_id, neuron_index, rank
        ) GROUP BY extraction_id, neuron_index
    """,
    "postgresql": f"""
        INSERT INTO feature_example_lists SELECT extraction_id, neuron_index, json_agg(json_build_array(
            sample_index, max_activation::real, max_token, positions, activations::real[]) ORDER BY rank)
        FROM {_TABLE} GROUP BY extraction_id, neuron_index
    """,
}
_SAMPLES = {
    "sqlite": f"""
        INSERT INTO sample_feature_lists SELECT extraction_id, sample_index, '[' || group_concat(feature) || ']' FROM (
            SELECT extraction_id, sample_index,
                '[' || neuron_index || ',' || float32_text(max_activation) || ']' AS feature
            FROM {_TABLE} ORDER BY extraction_id, sample_index, max_activation DESC, neuron_index
        ) GROUP BY extraction_id, sample_index
    """,
    "postgresql": f"""
        INSERT INTO sample_feature_lists SELECT extraction_id, sample_index, json_agg(json_build_array(
            neuron_index, max_activation::real) ORDER BY max_activation DESC, neuron_index)
        FROM {_TABLE} GROUP BY extraction_id, sample_index
    """,
}
_COUNTED = f"""
    SELECT a.extraction_id, max_token AS token, a.neuron_index, count(*) AS examples,
        max(a.max_activation) AS strongest, f.activation_frequency > 0.2 AS common, f.max_activation
    FROM {_TABLE} a JOIN features f ON f.extraction_id = a.extraction_id AND f.neuron_index = a.neuron_index
    WHERE rank < 20 GROUP BY 1, 2, 3, 6, 7
"""
_BY = "common, examples DESC, max_activation DESC, neuron_index"
_TOKENS = {
    "sqlite": f"""
        INSERT INTO strongest_token_lists
        SELECT extraction_id, token, trim(token, ' ' || char(10, 9, 13)), '[' || group_concat(feature) || ']' FROM (
            SELECT extraction_id, token, '[' || neuron_index || ',' || examples || ',' || float32_text(strongest) || ']'
                AS feature
            FROM ({_COUNTED}) ORDER BY extraction_id, token, {_BY}
        ) GROUP BY extraction_id, token
    """,
    "postgresql": f"""
        INSERT INTO strongest_token_lists
        SELECT extraction_id, token, btrim(token, E' \\n\\t\\r'),
            json_agg(json_build_array(neuron_index, examples, strongest::real) ORDER BY {_BY})
        FROM ({_COUNTED}) c GROUP BY extraction_id, token
    """,
}
_FIRST = {"sqlite": "json_extract(positions, '$[0]')", "postgresql": "positions[1]"}
_ROLES = {
    dialect: f"""
        INSERT INTO feature_roles SELECT a.extraction_id, m.role, a.neuron_index, count(*) FROM {_TABLE} a
        JOIN extractions e ON e.id = a.extraction_id
        JOIN sample_messages m ON m.corpus_id = e.corpus_id AND m.sample_index = a.sample_index
        WHERE rank < 20 AND {first} >= m.start AND {first} < m.stop GROUP BY 1, 2, 3
    """
    for dialect, first in _FIRST.items()
}


def fill_lists(connection: sa.Connection) -> None:
    """Fill the tables that migration 0006 has made from the rows of ``feature_activations``."""
    if connection.dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        assert driver is not None, "the transaction is open"
        driver.create_function("float32_text", 1, lambda value: str(np.float32(value)), deterministic=True)
        driver.create_function("float32_texts", 1, _float32_texts, deterministic=True)
    for statements in (_EXAMPLES, _SAMPLES, _TOKENS, _ROLES):
        run_as_written(connection, statements[connection.dialect.name])


def _float32_texts(values: str) -> str:
    """A JSON list of doubles, each of them with the digits of its float32."""
    return f"[{','.join(map(str, np.array(json.loads(values), np.float32)))}]"
