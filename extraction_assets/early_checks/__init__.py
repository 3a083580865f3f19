"""The checks before GPU hours are spent: of one batch, and of an extraction's declaration."""
