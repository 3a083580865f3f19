"""Writing results and removing them: one file an asset that has rows, each within its caller's transaction."""
