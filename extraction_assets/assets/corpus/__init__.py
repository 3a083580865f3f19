"""The corpus asset: the samples that run through the model."""
