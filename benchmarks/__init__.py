"""How fast an extraction is, beside the hardware's ceilings, the eager floor and the legacy loop."""
