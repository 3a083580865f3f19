"""What cannot be given, as one sentence each."""


class NotComputedError(LookupError):
    """A part of a result that was not computed, or is not stored; the message says what to do."""


class ClosedError(ValueError):
    """Results that are used after they were closed."""
