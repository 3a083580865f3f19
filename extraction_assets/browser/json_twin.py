"""A view as JSON: named tuples as objects, times in ISO 8601, and nothing that JSON does not have."""

import datetime as dt
import json
import math
from collections.abc import Mapping
from typing import Any


def json_bytes(value: Any) -> bytes:
    """UTF-8 JSON of a view, without white space: a browser sets it out by itself, and so does ``jq``."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def plain(value: Any) -> Any:
    """What ``json`` can write: objects, lists, text, numbers, true, false and null (also for NaN and infinities)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if hasattr(value, "_asdict"):
        return {name: plain(one) for name, one in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    return [plain(one) for one in value]
