"""JSON as exports write it: UTF-8, nothing between the signs, and no number that JSON does not have."""

import json
from json.encoder import encode_basestring
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


text = encode_basestring
"""A string as JSON: what ``encode`` gives, without the cost of a call for any value."""


def numbers(values: list[int] | list[float]) -> str:
    """Finite numbers as a JSON list, as ``encode`` gives them."""
    return f"[{','.join(map(repr, values))}]"


def number_list(values: "np.ndarray") -> str:
    """float32 values [n] as a JSON list: of each the fewest digits that are no other float32."""
    import pyarrow as pa

    return f"[{','.join(pa.array(values).cast(pa.string()).to_pylist())}]"
