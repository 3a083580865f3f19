"""Whether model, SAE, hook and text belong together, by tensors and configurations alone, and likely causes if they do
not. ``early_checks`` asks it for one batch of a declared extraction, and every run before its first chunk."""
