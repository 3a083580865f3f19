"""What several export formats write or one writes in a file of its own; the other files of ``formats`` are one format
each."""
