"""Plans what an extraction has to compute, from fingerprints."""
