"""What README.md tells people to type into a database does what it says, on both kinds."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets_tests.database.synthetic import make_results

README = Path(__file__).parents[1] / "README.md"
QUERIES = re.findall(r"```sql\n(.*?);", README.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("query", QUERIES, ids=["features", "examples", "sample"])
def test_the_queries_run_and_round(results_url: str, query: str) -> None:
    engine = open_database(results_url)
    try:
        with write_transaction(engine) as connection:
            make_results("f", 1.256, num_features=3446, top_k=2).load(connection)
        with engine.connect() as connection:
            rows = connection.execute(sa.text(query.replace("sample_index = 42", "sample_index = 7919"))).all()
        assert rows
        assert all(1.26 in [float(value) for value in row if not isinstance(value, str)] for row in rows)
    finally:
        engine.dispose()
