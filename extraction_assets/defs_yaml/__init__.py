"""The YAML files of extractions: the folder they are loaded from, templates, and errors by line."""
