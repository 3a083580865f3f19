"""Shared code of all asset bodies: keys, lineage, progress, failures, damaged files."""
