"""Whether model, SAE, hook and text belong together, and likely causes where they do not."""
