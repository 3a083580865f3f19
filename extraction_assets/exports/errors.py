"""What an export is refused with."""


class ExportError(ValueError):
    """What cannot be exported, or not there; one sentence that says why and what to do."""
