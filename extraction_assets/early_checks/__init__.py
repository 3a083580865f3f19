"""The checks before GPU hours are spent, of one batch and of an extraction's declaration: what they look at, and what
they say of the corpus and the disk. Whether model, SAE, hook and text belong together is judged in
``engine/preflight``."""
