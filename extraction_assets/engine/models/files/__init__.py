"""The files of a model's checkpoint: where they lie, which count, what their headers say."""
