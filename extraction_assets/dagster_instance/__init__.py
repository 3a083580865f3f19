"""Dagster's home: its dagster.yaml, and runs with a dead process."""
