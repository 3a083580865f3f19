"""Models: a checkpoint's files, its weights, its tokenizer, and the forward pass up to the deepest hook."""
