"""Rows from lists, on PostgreSQL: ``json_array_elements`` gives a list's elements with their places.

The lists are JSON as text, not JSONB: it loads in a third of the time and takes half the space, and to read one list
takes as long. A query that reads the lists of all features takes twice as long.
"""

VIEWS = {
    "feature_activations": """
        SELECT extraction_id, neuron_index, (e.place - 1)::integer AS rank,
            (e.value ->> 0)::bigint AS sample_index,
            (e.value ->> 1)::double precision AS max_activation,
            e.value ->> 2 AS max_token,
            translate((e.value -> 3)::text, '[]', '{}')::integer[] AS positions,
            translate((e.value -> 4)::text, '[]', '{}')::double precision[] AS activations
        FROM feature_example_lists
        CROSS JOIN LATERAL json_array_elements(feature_example_lists.examples) WITH ORDINALITY AS e(value, place)
    """,
    "feature_draws": """
        SELECT extraction_id, neuron_index, (d.value ->> 0)::integer AS interval,
            (row_number() OVER (PARTITION BY extraction_id, neuron_index, d.value ->> 0 ORDER BY d.place) - 1)
                ::integer AS rank,
            (d.value ->> 1)::bigint AS sample_index,
            (d.value ->> 2)::double precision AS max_activation,
            d.value ->> 3 AS max_token,
            translate((d.value -> 4)::text, '[]', '{}')::integer[] AS positions,
            translate((d.value -> 5)::text, '[]', '{}')::double precision[] AS activations
        FROM feature_draw_lists
        CROSS JOIN LATERAL json_array_elements(feature_draw_lists.draws) WITH ORDINALITY AS d(value, place)
    """,
    "sample_features": """
        SELECT extraction_id, sample_index, (f.value ->> 0)::bigint AS neuron_index,
            (f.value ->> 1)::double precision AS max_activation
        FROM sample_feature_lists CROSS JOIN LATERAL json_array_elements(sample_feature_lists.features) AS f(value)
    """,
    "strongest_tokens": """
        SELECT extraction_id, token, word, (f.value ->> 0)::bigint AS neuron_index,
            (f.value ->> 1)::integer AS examples, (f.value ->> 2)::double precision AS max_activation
        FROM strongest_token_lists CROSS JOIN LATERAL json_array_elements(strongest_token_lists.features) AS f(value)
    """,
}
