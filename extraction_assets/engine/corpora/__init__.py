"""Where documents come from, how they become tokens and samples, and how tokens are shown."""
