"""Results in Python: the frames, texts, vectors and sparse activations of an extraction, and extractions in memory."""
