"""Tests of engine/hub."""
