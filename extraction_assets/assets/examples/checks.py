"""What a merge claims of itself; the checks of these claims run before it commits."""

import dagster as dg

NONE_MISSING = "no_chunk_is_missing"
MATCH_TABLES = "examples_match_chunk_tables"
MERGE_CHECKS = {
    NONE_MISSING: "Every chunk of the corpus is in the merged examples.",
    MATCH_TABLES: "A seeded part of the stored rows, worked out again from the chunk tables.",
}
"""If one fails, nothing in the database changes."""


def merge_check_specs(key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of the merged examples under ``key``."""
    return [dg.AssetCheckSpec(name, asset=key, description=claim) for name, claim in MERGE_CHECKS.items()]


class MergeRefused(ValueError):
    """Chunks cannot be merged, or the merge is wrong; nothing in the database was changed."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check
        """The claim that does not hold."""
