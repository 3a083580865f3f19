"""Shapes by name: the sizes of models that SAEs are published for, as many blocks as run to the usual hook.

The model is a Llama with random weights whatever the name: the matrix products have the sizes of the named model's.
"""

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """Sizes of a language model."""

    blocks: int
    """Of which the hook is the last."""
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    vocabulary: int


SHAPES = {
    "small": Shape(8, 768, 12, 12, 64, 3072, 32_000),
    "gpt2": Shape(9, 768, 12, 12, 64, 2048, 50_257),  # three products of 2,048 are the two of 3,072
    "gemma-2-2b": Shape(13, 2304, 8, 4, 256, 9216, 256_000),
    "llama-3-8b": Shape(16, 4096, 32, 8, 128, 14_336, 128_256),
}


def fill_shape(values: dict[str, Any]) -> None:
    """Fills in the sizes that the command line leaves open: those of the shape, or what follows from others that it
    names, such as the size of a head from width and heads."""
    shape = SHAPES[values["shape"]]
    given = {name for name in Shape._fields if values[name] is not None}
    for name in Shape._fields:
        values[name] = values[name] or getattr(shape, name)
    if given & {"width", "heads"}:
        if "head_size" not in given:
            values["head_size"] = values["width"] // values["heads"]
        if "key_value_heads" not in given:
            values["key_value_heads"] = values["heads"]
