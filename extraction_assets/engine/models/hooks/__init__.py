"""Hooks: what their names mean in each family of models, and which tensor each is."""
