"""Statistics of every feature over the whole corpus: descriptions, accumulation and merge.

``registry.py`` is the one list: from it follow the accumulator, the merge, the file, the columns of the database
and the table in docs/database.md.
"""
