"""This machine: what tells a process here from one elsewhere."""
