"""The three chunk assets, which come from one GPU pass: model activations, SAE features and top-k tables."""
