"""What an extraction has to compute."""
