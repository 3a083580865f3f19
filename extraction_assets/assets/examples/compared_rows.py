"""The check that stored rows are those of the chunk tables, before they are committed."""

import dagster as dg
import sqlalchemy as sa

from extraction_assets.assets.examples.checks import MATCH_TABLES
from extraction_assets.assets.examples.expected import Expected, differences


def compare_with_tables(
    connection: sa.Connection, extraction_id: int, expected: dict[int, Expected]
) -> dg.AssetCheckResult:
    """Whether the stored rows equal the expected features."""
    wrong = differences(connection, extraction_id, expected)
    return dg.AssetCheckResult(
        check_name=MATCH_TABLES,
        passed=not wrong,
        metadata={"features_compared": len(expected)},
        description="; ".join(wrong[:10]) or f"{len(expected)} features worked out again, all equal",
    )
