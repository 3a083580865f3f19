"""What may be chosen of a format."""

from typing import NamedTuple


class Option(NamedTuple):
    """What may be chosen of a format beside the features."""

    default: str
    """Empty: what the format says."""
    meaning: str
