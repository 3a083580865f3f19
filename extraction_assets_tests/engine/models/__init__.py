"""Tests of a model's folder, its weights and its tokenizer."""
