"""What an extraction costs, worked out from measured rates: the formulas of docs/scaling.md."""

import json
import math
from pathlib import Path
from typing import NamedTuple

RATES: dict[str, dict[str, str | float]] = json.loads(
    Path(__file__).with_name("measured_rates.json").read_text("utf-8")
)
"""Figures of benchmarks/RESULTS.md, each with its section and the beginning of its row; test_scaling.py compares."""

TOKENS, TOP_K, FIRING, CHUNK = 128, 100, 64, 5_000
"""Tokens of a sample, examples kept of a feature, features that fire on a token, samples of a chunk: assumed."""

GPU_HOUR_DOLLARS, GIGABYTE_MONTH_DOLLARS = 2.5, 0.023
"""Prices: assumed."""

GPUS = 8
"""Of one host, for the question what bends first: assumed."""


class Model(NamedTuple):
    """Sizes of a published model and SAE, down to the hook."""

    name: str
    sae: str
    blocks: int
    """That run: the hook is after the last of them."""
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    products: int
    """Of the feed-forward part: 3 if it is gated, else 2."""
    features: int
    is_measured: bool
    """Whether RESULTS.md has this very shape."""


_GPT2 = ("GPT-2 small", 8, 768, 12, 12, 64, 3_072, 2)
_GEMMA2 = ("Gemma 2 2B", 13, 2_304, 8, 4, 256, 9_216, 3)
_LLAMA = ("Llama 3.1 8B", 16, 4_096, 32, 8, 128, 14_336, 3)
_GEMMA3 = ("Gemma 3 27B", 32, 5_376, 32, 16, 128, 21_504, 3)


def _model(sizes: tuple[str, int, int, int, int, int, int, int], sae: str, features: int, measured: bool) -> Model:
    name, *numbers = sizes
    return Model(str(name), sae, *map(int, numbers), features, measured)


MODELS = (
    _model(_GPT2, "gpt2-small-res-jb, block 8", 24_576, False),
    _model(_GEMMA2, "Gemma Scope, layer 12, 16k", 16_384, True),
    _model(_GEMMA2, "Gemma Scope, layer 12, 65k", 65_536, True),
    _model(_LLAMA, "Llama Scope, layer 15, 8x", 32_768, False),
    _model(_LLAMA, "Llama Scope, layer 15, 32x", 131_072, False),
    _model(_GEMMA3, "Gemma Scope 2, layer 31, 65k", 65_536, False),
    _model(_GEMMA3, "Gemma Scope 2, layer 31, 262k", 262_144, False),
)


def rate(name: str) -> float:
    """A measured figure."""
    return float(RATES[name]["value"])


def block_parameters(model: Model) -> int:
    """Weights of one block's matrices."""
    attention = 2 * model.width * model.head_size * (model.heads + model.key_value_heads)
    return attention + model.products * model.width * model.intermediate


def forward_flops(model: Model) -> float:
    """Floating-point operations of a sample's forward pass: products with the weights, and half of the attention scores
    (causal)."""
    attention = 2 * TOKENS * model.heads * model.head_size
    return TOKENS * model.blocks * (2 * block_parameters(model) + attention)


def encode_flops(model: Model, features: int | None = None) -> float:
    """Floating-point operations of a sample's encode."""
    return TOKENS * 2 * model.width * (features or model.features)


SMALL = Model("small", "", 8, 768, 12, 12, 64, 3_072, 3, 16_384, True)
"""The shape that most of RESULTS.md is measured with."""


def encode_rate(model: Model) -> float:
    """Operations a second of an encode down to the non-zeros, at the measured width that is nearest from below."""
    if model.width < 2_304:
        return encode_flops(SMALL) * rate("encode_small")
    if model.width < 4_096:
        more = encode_flops(model, 65_536) - encode_flops(model, 16_384)
        return more / (1 / rate("floor_gemma_65k") - 1 / rate("floor_gemma_16k"))
    return rate("product_wide") * 1e12 / rate("encode_over_product_wide")


def forward_rate(model: Model) -> float:
    """Operations a second of a forward pass: of the small shape at its width, else of Gemma 2 2B's shape, from whose
    time with 16,384 features the encode is subtracted."""
    if model.width < 2_304:
        return forward_flops(SMALL) * rate("forward_small")
    gemma = MODELS[1]
    encode = encode_flops(gemma) / encode_rate(gemma)
    return forward_flops(gemma) / (1 / rate("floor_gemma_16k") - encode)


def seconds_per_sample(model: Model) -> float:
    """Of one GPU, from tokens to a chunk's table."""
    if model.is_measured:
        floor = rate("floor_gemma_16k" if model.features == 16_384 else "floor_gemma_65k")
        return 1 / floor / rate("share_gemma")
    share = rate("share_small" if model.width < 2_304 else "share_gemma")
    return (forward_flops(model) / forward_rate(model) + encode_flops(model) / encode_rate(model)) / share


def corpus_seconds(samples: int) -> float:
    """Of tokenizing, on one core."""
    return samples * TOKENS / rate("tokenizing")


def corpus_bytes(samples: int) -> float:
    """Of a corpus in the store, 6 a position."""
    return samples * TOKENS * 6


def activation_memory(model: Model, chunk: int) -> float:
    """Bytes of the host that a run holds if it stores everything: two chunks of activations. Three of chunks that take
    less than a GiB with their features and tables, as none of ``MODELS`` does (``assets/chunks/writer.py``)."""
    return 2 * chunk * activation_bytes(model)


def activation_bytes(model: Model) -> float:
    """Of a sample, at one hook, in bfloat16."""
    return TOKENS * model.width * 2


def feature_bytes() -> float:
    """Of a sample: 8 bytes a token and 8 bytes a firing."""
    return TOKENS * (8 + 8 * FIRING)


def examples_of_chunk(model: Model, chunk: int) -> float:
    """At most K a feature, and never more than fire."""
    return min(model.features * TOP_K, chunk * TOKENS * FIRING)


DEMO_FEATURES = 4_096
"""Of the demo, whose chunk files RESULTS.md lists."""


def example_bytes() -> float:
    """Of one example in a table."""
    return rate("bytes_examples_20") / (DEMO_FEATURES * 20)


def draw_bytes() -> float:
    """Of the draws of one feature of a chunk."""
    return rate("bytes_draws") / DEMO_FEATURES


def table_bytes(model: Model, chunk: int = CHUNK) -> float:
    """Of a chunk: examples, statistics, draws and the firings of one sample in 16."""
    per_feature = rate("bytes_statistics") + draw_bytes()
    return (
        examples_of_chunk(model, chunk) * example_bytes() + model.features * per_feature + chunk * feature_bytes() / 16
    )


def chunk_size(samples: int, most_chunks: int) -> int:
    """The default, or what keeps the partitions of an asset below Dagster's limit."""
    return max(CHUNK, math.ceil(samples / most_chunks))


def merge_seconds(model: Model, chunks: int) -> float:
    """Of a first merge: each table is read once, at the measured time a feature and table. It leaves merged tables of
    every 32, so that a later merge reads some 50 of them."""
    return chunks * model.features * rate("merge_20_tables") / (20 * 16_384)


def load_seconds(model: Model) -> float:
    """Of the merged examples into PostgreSQL, whatever the number of samples."""
    return model.features * TOP_K / rate("load_postgresql")


def database_rows(model: Model, samples: int) -> int:
    """Of a result: statistics and the list of examples of each feature, and each sample that an example names with the
    list of its features. They stop growing where every example is another sample's."""
    return 2 * model.features + 2 * min(samples, model.features * TOP_K)


def database_bytes(model: Model) -> float:
    """Of a result, at most, whatever the number of samples."""
    return model.features * TOP_K * rate("bytes_row_example")


def event_seconds(chunks: int, events: float) -> float:
    """Of all events, each run's written while nothing else happens in it."""
    return chunks * events * rate("event_milliseconds") / 1_000


class Hours(NamedTuple):
    """Hours of an extraction's parts on a host of GPUS."""

    corpus: float
    passes: float
    activations: float
    features: float
    tables: float
    events: float
    merge: float
    load: float


def hours(model: Model, samples: int, chunk: int) -> Hours:
    """Each part by itself; writing goes on while the next chunk computes, so that the longest part counts."""
    chunks = math.ceil(samples / chunk)
    seconds = (
        corpus_seconds(samples),
        samples * seconds_per_sample(model) / GPUS,
        samples * activation_bytes(model) / rate("disk"),
        samples * feature_bytes() / rate("disk"),
        chunks * table_bytes(model, chunk) / rate("disk"),
        event_seconds(chunks, rate("events_chunk_all")) / GPUS,
        merge_seconds(model, chunks),
        load_seconds(model),
    )
    return Hours(*(one / 3_600 for one in seconds))
