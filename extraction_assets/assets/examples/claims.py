"""What a merge claims of itself; the checks of these claims run before it commits."""

import dagster as dg

NONE_MISSING = "no_chunk_is_missing"
MATCH_TABLES = "examples_match_chunk_tables"


def merge_check_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of the merged examples under ``key``."""
    return [
        dg.AssetCheckSpec(NONE_MISSING, asset=key, description="Every chunk of the corpus is in the merged examples."),
        dg.AssetCheckSpec(
            MATCH_TABLES,
            asset=key,
            description="A seeded part of the stored rows, worked out again from the chunk tables.",
        ),
    ]
