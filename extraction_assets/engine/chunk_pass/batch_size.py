"""Valid numbers of samples to reduce at once; imports no torch, because commands and resources check them too."""

from typing import Any, Literal

BatchSize = int | Literal["auto"]


def parse_batch_size(value: Any) -> BatchSize:
    """``auto`` or a positive whole number, as 128 or "128". Raises ValueError that says what is allowed."""
    text = str(value).strip()
    if text == "auto":
        return "auto"
    if isinstance(value, (int, str)) and not isinstance(value, bool) and text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueError(f"vectorization_batch_size must be 'auto' or a whole number of at least 1, got {value!r}")
