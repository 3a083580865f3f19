"""Rows from lists, on DuckDB: ``unnest`` in a SELECT gives a list's elements beside their places.

Not in FROM: DuckDB would then read the lists of all features before it looks for one.
"""


def _elements(table: str, column: str, *keys: str) -> str:
    """The rows of a table of lists, once for each element ``e`` of its list, which is at ``place`` from 0."""
    places = f"unnest(range(json_array_length({column})::BIGINT)) AS place"
    return f"(SELECT {', '.join(keys)}, unnest(json_extract({column}, '$[*]')) AS e, {places} FROM {table})"


VIEWS = {
    "feature_activations": f"""
        SELECT extraction_id, neuron_index, place::INTEGER AS rank,
            (e ->> '$[0]')::BIGINT AS sample_index,
            (e ->> '$[1]')::DOUBLE AS max_activation,
            e ->> '$[2]' AS max_token,
            (e -> '$[3]')::VARCHAR AS positions,
            (e -> '$[4]')::VARCHAR AS activations
        FROM {_elements("feature_example_lists", "examples", "extraction_id", "neuron_index")}
    """,
    "feature_draws": f"""
        SELECT extraction_id, neuron_index, "interval",
            (row_number() OVER (PARTITION BY extraction_id, neuron_index, "interval" ORDER BY place) - 1)::INTEGER
                AS rank,
            sample_index, max_activation, max_token, positions, activations
        FROM (
            SELECT extraction_id, neuron_index, place,
                (e ->> '$[0]')::INTEGER AS "interval",
                (e ->> '$[1]')::BIGINT AS sample_index,
                (e ->> '$[2]')::DOUBLE AS max_activation,
                e ->> '$[3]' AS max_token,
                (e -> '$[4]')::VARCHAR AS positions,
                (e -> '$[5]')::VARCHAR AS activations
            FROM {_elements("feature_draw_lists", "draws", "extraction_id", "neuron_index")}
        )
    """,
    "sample_features": f"""
        SELECT extraction_id, sample_index,
            (e ->> '$[0]')::BIGINT AS neuron_index,
            (e ->> '$[1]')::DOUBLE AS max_activation
        FROM {_elements("sample_feature_lists", "features", "extraction_id", "sample_index")}
    """,
    "strongest_tokens": f"""
        SELECT extraction_id, token, word,
            (e ->> '$[0]')::BIGINT AS neuron_index,
            (e ->> '$[1]')::INTEGER AS examples,
            (e ->> '$[2]')::DOUBLE AS max_activation
        FROM {_elements("strongest_token_lists", "features", "extraction_id", "token", "word")}
    """,
}
