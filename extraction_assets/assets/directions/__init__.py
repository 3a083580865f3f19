"""The feature_directions asset: what each feature writes, by the weights alone."""
