"""Exports: results in the formats that others read, one file a format in ``exports/formats/``."""
