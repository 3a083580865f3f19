"""Tests that mirror extraction_assets.database.backends."""
