"""Sparse autoencoders: checkpoints of every format, and encoding with them."""
