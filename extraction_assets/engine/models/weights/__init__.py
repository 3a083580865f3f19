"""Whether the weights that were loaded are those of the files."""
