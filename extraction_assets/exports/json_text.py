"""JSON as exports write it: UTF-8, nothing between the signs, and no number that JSON does not have."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def number_list(values: "np.ndarray") -> str:
    """float32 values [n] as a JSON list: of each the fewest digits that are no other float32."""
    import pyarrow as pa

    return f"[{','.join(pa.array(values).cast(pa.string()).to_pylist())}]"
