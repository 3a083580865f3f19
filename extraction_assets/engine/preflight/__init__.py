"""Whether model, SAE, hook and text belong together, and likely causes if they do not."""
