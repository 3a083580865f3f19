"""Which kinds of databases a test is of: with these marks of those that migrations and plain statements change.

Parquet files have no index and no migrations, and change in bulk alone.
"""

import pytest

_SQL = ("sqlite", "postgresql")

empty_sql = pytest.mark.parametrize("empty_url", _SQL, indirect=True)
sql = pytest.mark.parametrize("results_url", _SQL, indirect=True)
shared_sql = pytest.mark.parametrize("shared_results_url", _SQL, indirect=True)
