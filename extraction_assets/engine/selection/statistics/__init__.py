"""Statistics of every feature over the whole corpus: what there is, and how it is added up and merged.

``descriptions.py`` is the one list: from it follow the accumulator, the merge, the file, the columns of the database
and the table in docs/database.md.
"""
