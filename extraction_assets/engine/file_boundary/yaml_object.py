"""A YAML mapping of a checkpoint, of plain values alone, bounded in size and depth."""

from collections import Counter
from typing import Any

import yaml

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointFile, one_line, shown
from extraction_assets.engine.file_boundary.json_object import KINDS, MOST_DEPTH, check_object

MOST_BYTES = 1 << 18
"""A configuration has a few kilobytes, and YAML is slow to read: 0.3 s for so many bytes."""


def read_yaml_object(file: CheckpointFile, most: int = MOST_BYTES) -> dict[str, Any]:
    """The YAML mapping in ``file``, at most ``most`` bytes, of texts, numbers, dates, lists and mappings.

    Raises CheckpointError if it is no UTF-8, no YAML or no mapping, asks for objects of Python, is nested deeper than
    64, or has a key twice.
    """
    file.size(most)
    with file.reading():
        content = file.path.read_bytes()
    try:
        value = yaml.load(content.decode("utf-8"), Loader=_PlainLoader)
    except RecursionError:
        raise file.error(f"is nested too deeply, more than {MOST_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise file.error(f"is not YAML (not UTF-8: {one_line(error)})") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # ValueError: no date, or a number of too many digits
        raise file.error(f"is not YAML of plain values ({one_line(error)})") from None
    if not isinstance(value, dict):
        raise file.error(f"is not a YAML mapping but {KINDS.get(type(value), 'a value')}")
    check_object(file, value, form="YAML")
    return value


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader in Python, which a deep nesting cannot crash, without duplicate keys, and without merges
    (``<<``), by which a few lines grow to billions of entries."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = Counter((key.tag, key.value) for key, _ in getattr(node, "value", []) if isinstance(key.value, str))
        twice = next((value for (_, value), count in keys.items() if count > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {shown(twice)} stands there twice")
        if any(tag == "tag:yaml.org,2002:merge" for tag, _ in keys):
            raise yaml.constructor.ConstructorError(None, None, "it merges mappings by <<, which is not supported")
        return super().construct_mapping(node, deep=deep)
