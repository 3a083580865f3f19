"""The forward pass up to the deepest hook: captured, capped, recorded and replayed."""
