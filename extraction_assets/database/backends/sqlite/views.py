"""Rows from lists, on SQLite: ``json_each`` gives a list's elements with their places."""

# A real number without a fraction is written as an integer in JSON, hence the casts.
VIEWS = {
    "feature_activations": """
        SELECT extraction_id, neuron_index, e.key AS rank,
            json_extract(e.value, '$[0]') AS sample_index,
            CAST(json_extract(e.value, '$[1]') AS REAL) AS max_activation,
            json_extract(e.value, '$[2]') AS max_token,
            json_extract(e.value, '$[3]') AS positions,
            json_extract(e.value, '$[4]') AS activations
        FROM feature_example_lists, json_each(feature_example_lists.examples) e
    """,
    "feature_draws": """
        SELECT extraction_id, neuron_index, interval,
            row_number() OVER (PARTITION BY extraction_id, neuron_index, interval ORDER BY place) - 1 AS rank,
            sample_index, max_activation, max_token, positions, activations
        FROM (
            SELECT extraction_id, neuron_index, d.key AS place,
                json_extract(d.value, '$[0]') AS interval,
                json_extract(d.value, '$[1]') AS sample_index,
                CAST(json_extract(d.value, '$[2]') AS REAL) AS max_activation,
                json_extract(d.value, '$[3]') AS max_token,
                json_extract(d.value, '$[4]') AS positions,
                json_extract(d.value, '$[5]') AS activations
            FROM feature_draw_lists, json_each(feature_draw_lists.draws) d
        )
    """,
    "sample_features": """
        SELECT extraction_id, sample_index,
            json_extract(f.value, '$[0]') AS neuron_index,
            CAST(json_extract(f.value, '$[1]') AS REAL) AS max_activation
        FROM sample_feature_lists, json_each(sample_feature_lists.features) f
    """,
    "strongest_tokens": """
        SELECT extraction_id, token, word,
            json_extract(f.value, '$[0]') AS neuron_index,
            json_extract(f.value, '$[1]') AS examples,
            CAST(json_extract(f.value, '$[2]') AS REAL) AS max_activation
        FROM strongest_token_lists, json_each(strongest_token_lists.features) f
    """,
}
