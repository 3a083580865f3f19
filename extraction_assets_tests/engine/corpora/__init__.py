"""Tests of the corpora package."""
