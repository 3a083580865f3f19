"""Queries of the results database, for people and pages: functions that give a ``sa.Select``, which a page can show,
and functions that run them."""
