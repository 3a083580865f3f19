"""The errors of a database that cannot be used."""


class DatabaseError(ValueError):
    """A database cannot be used; the message is one sentence that holds no password."""


class DatabaseUnavailableError(DatabaseError):
    """A database that may soon be available again: it restarts, is busy, or the network failed."""


class FullDiskError(DatabaseError):
    """A database that cannot be written because its disk is full."""


class NotWritableError(DatabaseError):
    """A database whose file, or the folder of it, this user may not write to; the message names it."""
