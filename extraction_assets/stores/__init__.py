"""Files and fingerprints: what is stored, where, and what it was made from; folders in object storage."""
