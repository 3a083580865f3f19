"""The feature_examples asset: the tables of all chunks merged into the results database."""
