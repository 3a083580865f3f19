"""Removal of what extractions leave behind, on disk and in the database."""
