"""Where something stands in a YAML file, for errors that do not say it. Finds nothing in a file that is not YAML."""

from collections.abc import Iterator
from typing import NamedTuple

import yaml

DEEPEST = 100
"""Levels of nesting beyond which no field of a component lies."""

MOST = 100_000
"""Values that a file may have with what its aliases repeat."""


class YamlLine(NamedTuple):
    """A key with a plain value."""

    key: str
    """With the keys above it, ``attributes.corpus.source``."""
    line: int
    node: yaml.ScalarNode


def too_deep_at(text: str) -> int | None:
    """First line that opens more than ``DEEPEST`` levels."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return int(event.start_mark.line) + 1
    return None


def refuse_repetition(text: str) -> None:
    """Raises ValueError if aliases of aliases make a short file one of more than ``MOST`` values."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader) if "&" in text else ():
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1))
        elif isinstance(event, yaml.ScalarEvent | yaml.AliasEvent | yaml.CollectionEndEvent):
            closed = isinstance(event, yaml.CollectionEndEvent)
            anchor, size = opened.pop() if closed else (event.anchor, sizes.get(event.anchor, 1))
            if anchor is not None:
                sizes[anchor] = size
            opened[-1] = (opened[-1][0], opened[-1][1] + size)
            if size > MOST:
                line = event.start_mark.line + 1
                raise ValueError(
                    f"line {line} repeats other lines until there are more than {MOST} values: write fewer"
                )


def line_of(text: str, part: str) -> int:
    """Line in which ``part`` first stands."""
    return text.partition(part)[0].count("\n") + 1


def unreadable(text: str) -> YamlLine | None:
    """The first value that is not what its form or its tag says, such as a number with too many digits."""
    for place in places(text):
        try:
            yaml.SafeLoader("").construct_object(place.node)
        except (ValueError, LookupError, AttributeError):  # what the constructors of numbers, truths and dates raise
            return place
    return None


def places(text: str) -> Iterator[YamlLine]:
    """All plain values of a file in their order, each once, however often an alias repeats it."""
    seen: set[int] = set()
    left: list[tuple[tuple[str, ...], yaml.Node]] = []
    left += [((), node) for node in yaml.compose_all(text, Loader=yaml.SafeLoader)][::-1]
    while left:
        path, node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            yield YamlLine(".".join(path), node.start_mark.line + 1, node)
        left += [(path + key, child) for key, child in _children(node)][::-1]


def _children(node: yaml.Node) -> list[tuple[tuple[str, ...], yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        return [((str(key.value),), value) for key, value in node.value]
    return (
        [((str(index),), child) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.SequenceNode)
        else []
    )
