"""Dagster's own home: its dagster.yaml, and runs that died."""
