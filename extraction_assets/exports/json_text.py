"""JSON as exports write it: UTF-8, nothing between the signs, and no number that JSON does not have."""

import json

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
