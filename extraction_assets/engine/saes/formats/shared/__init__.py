"""What the readers of several formats share; no format itself."""
