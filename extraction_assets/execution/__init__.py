"""What the bodies of all assets use: keys, lineage, progress, failures, damaged files."""
