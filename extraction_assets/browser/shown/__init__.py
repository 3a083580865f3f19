"""What pages show, as named tuples: texts in context, charts, the parts of a feature. No HTML and no routes."""
