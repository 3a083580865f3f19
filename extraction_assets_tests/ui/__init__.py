"""The real UI in a real browser."""
