"""Tests of a checkpoint's files and its tokenizer."""
