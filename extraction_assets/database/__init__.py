"""The results database: tables, bulk load, queries, migrations."""
