"""Faults that the suite has to notice: ``make mutations`` puts each into a copy of the package and runs its tests."""
