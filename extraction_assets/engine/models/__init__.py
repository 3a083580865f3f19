"""Models: a checkpoint's files, its tokenizer, and the forward pass up to the deepest hook."""
