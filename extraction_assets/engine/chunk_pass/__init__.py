"""One chunk through the model and its SAEs: tokens to activations, features and top-k table."""
