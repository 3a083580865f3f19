"""Tests of what looks after files and rows."""
