"""Floating-point operations of a sample, and the least time that the hardware's ceilings leave for them."""

from collections.abc import Sequence

from benchmarks.options import Options

MATMUL = "matrix product, "
"""Begins the names of the ceilings; the precision follows."""


def forward_operations(options: Options) -> float:
    """Of one sample in the model up to the hook: its matrix products, and half of the attention scores (causal)."""
    heads, width = options.heads * options.head_size, options.width
    attention = 2 * width * heads + 2 * width * options.key_value_heads * options.head_size
    weights = attention + 3 * width * options.intermediate
    scores = 2 * heads * options.positions  # a token sees half of T keys; two products, of two operations each
    return float(options.blocks * options.positions * (2 * weights + scores))


def encode_operations(options: Options) -> float:
    """Of one sample in the encoder's matrix product."""
    return 2.0 * options.positions * options.width * options.latent_dim


def least_seconds(options: Options, products: Sequence[str], ceilings: dict[str, float]) -> float | None:
    """Seconds of a sample if every product in ``products`` (``forward``, ``encode``) ran at its own ceiling, of
    ``ceilings`` (precision -> TFLOP/s): the model's products at its dtype, encode at the configured precision.

    None where these were not measured.
    """
    encode = next((name for name in ("TF32", "float32") if name in ceilings), None)
    forward = "bf16" if options.torch_device.type == "cuda" else encode
    used = {"forward": (forward_operations(options), forward), "encode": (encode_operations(options), encode)}
    seconds = 0.0
    for product in products:
        operations, precision = used[product]
        if precision is None or precision not in ceilings:
            return None
        seconds += operations / (ceilings[precision] * 1e12)
    return seconds or None
