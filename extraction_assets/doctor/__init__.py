"""Looks at a machine and says what is wrong and what to do; changes nothing."""
