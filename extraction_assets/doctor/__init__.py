"""Examines a machine and reports what is wrong and what to do; changes nothing."""
