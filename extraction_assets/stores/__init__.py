"""Files and fingerprints: what is durable, what it was made from, and where it lies."""
