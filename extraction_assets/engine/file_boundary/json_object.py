"""A JSON object of a checkpoint, bounded in size and depth."""

import json
from collections import Counter
from typing import Any

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointFile, one_line, shown

MOST_BYTES = 64 << 20
"""The index of a model of a hundred thousand tensors has 10 MB."""
MOST_DEPTH = 64
"""Levels of values within each other."""
KINDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
"""What messages call a value that is no object."""


def read_json_object(file: CheckpointFile, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in ``file``, at most ``most`` bytes.

    Raises CheckpointError if it is no UTF-8, no JSON or no object, is nested deeper than 64, or has a key twice.
    """
    file.size(most)
    with file.reading():
        content = file.path.read_bytes()
    return parse_json_object(file, content)


def parse_json_object(file: CheckpointFile, content: bytes, part: str = "") -> dict[str, Any]:
    """The JSON object in the bytes of ``file``, or of that ``part`` of it: ``the header of ``. Raises as
    ``read_json_object``."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise file.error(f"{part}is nested too deeply, more than {MOST_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise file.error(f"{part}is not JSON (not UTF-8: {one_line(error)})") from None
    except ValueError as error:  # JSONDecodeError is one, and a number of too many digits
        raise file.error(f"{part}is not JSON ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise file.error(f"{part}is not a JSON object but {KINDS[type(value)]}")
    check_object(file, value, part)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(name)} stands there twice")
    return found


def check_object(file: CheckpointFile, value: dict[str, Any], part: str = "", form: str = "JSON") -> None:
    """Raises CheckpointError if a value read from ``file`` is nested too deeply, or holds text that cannot be printed:
    half of a surrogate pair is no character. What stands in it more than once is looked at once a level."""
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH):
        texts = [one for one in level if isinstance(one, str)]
        texts += [key for one in level if isinstance(one, dict) for key in one if isinstance(key, str)]
        for text in texts:
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                raise file.error(f"{part}is not {form} (the text {shown(text)} is not Unicode)")
        below = [inner for one in level if isinstance(one, dict) for inner in one.values()]
        below += [inner for one in level if isinstance(one, list) for inner in one]
        level = list({id(inner): inner for inner in below}.values())
        if not level:
            return
    raise file.error(f"{part}is nested too deeply, more than {MOST_DEPTH} levels")
