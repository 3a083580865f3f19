"""What is known before GPU hours are spent: from one batch, and from an extraction as it is declared."""
