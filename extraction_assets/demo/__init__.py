"""A small language model trained on the Python standard library, and a sparse autoencoder on it."""
