"""Tests of what an extraction has to compute."""
