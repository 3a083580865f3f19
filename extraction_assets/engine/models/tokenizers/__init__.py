"""Tokenizers as their files say, and what other readings of these files would change."""
