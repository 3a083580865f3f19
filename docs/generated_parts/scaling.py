"""The tables of docs/scaling.md that follow from measured rates."""

from generated_parts import arithmetic
from generated_parts.arithmetic import MODELS, RATES, Hours, Model
from generated_parts.markdown import table

MILLION = 1_000_000
SIZES = (MILLION, 100 * MILLION, 10_000 * MILLION)

REMEDIES = {
    "corpus": "`num_workers`, up to the cores of the host",
    "passes": "more GPUs; `compile_model: true`",
    "activations": "`keep: {model_activations: false}`, or a faster store",
    "features": "`keep: {sae_features: false}`, or a faster store",
    "tables": "a larger `chunk_size`, a smaller `top_k_examples`",
    "events": "a larger `chunk_size`",
    "merge": "a larger `chunk_size`",
    "load": "a smaller `top_k_examples`; the server's settings",
}
"""Part of ``Hours`` -> what moves it."""


def scaling_rates() -> str:
    """The inputs: figures of RESULTS.md."""
    rows = [
        [f"{rate['figure']}", str(rate["unit"]), str(rate["used_for"]), f"{rate['section']}: *{rate['row']}*"]
        for rate in RATES.values()
    ]
    return table(["figure", "in", "of", "in RESULTS.md"], rows)


def scaling_totals() -> str:
    """Time, bytes, files, rows, events and money, at three sizes."""
    header = ["samples", "model", "SAE", "F", "samples/s a GPU", "GPU hours", "GPU money", "CPU hours of the corpus"]
    header += ["corpus", "activations", "features", "tables", "store, a month", "files", "rows", "database", "events"]
    return table(header, [_totals(model, samples) for samples in SIZES for model in MODELS])


def _totals(model: Model, samples: int) -> list[str]:
    chunk = arithmetic.chunk_size(samples, _most_chunks())
    chunks = samples // chunk
    gpu_hours = samples * arithmetic.seconds_per_sample(model) / 3_600
    stored = [
        arithmetic.corpus_bytes(samples),
        samples * arithmetic.activation_bytes(model),
        samples * arithmetic.feature_bytes(),
        chunks * arithmetic.table_bytes(model, chunk),
    ]
    return [
        f"{samples:,}",
        model.name,
        model.sae,
        f"{model.features:,}",
        f"{1 / arithmetic.seconds_per_sample(model):,.0f}" + ("" if model.is_measured else " (estimated)"),
        _number(gpu_hours),
        f"${_number(gpu_hours * arithmetic.GPU_HOUR_DOLLARS)}",
        _number(arithmetic.corpus_seconds(samples) / 3_600),
        *map(_size, stored),
        f"${_number(sum(stored) / 1e9 * arithmetic.GIGABYTE_MONTH_DOLLARS)}",
        f"{chunks * _files_of_chunk():,}",
        f"{arithmetic.database_rows(model, samples):,}",
        _size(arithmetic.database_bytes(model)),
        f"{chunks * arithmetic.rate('events_chunk_all'):,.0f}",
    ]


def _most_chunks() -> int:
    from extraction_assets.settings.extraction import MOST_CHUNKS

    return MOST_CHUNKS


def scaling_formulas() -> str:
    """How the columns of the totals follow from the sizes of a model."""
    example, statistics, draws = (
        arithmetic.example_bytes(),
        arithmetic.rate("bytes_statistics"),
        arithmetic.draw_bytes(),
    )
    chunk_events = [arithmetic.rate(f"events_chunk_{which}") for which in ("all", "tables")]
    tables = (
        f"chunks × (min(F × K, firings of the chunk) × {example:.0f} + F × {statistics:.0f} + F × {draws:.0f}) bytes"
    )
    rows = [
        [
            "samples/s",
            "the share that chunks keep / (forward + encode), each its operations over a measured rate of them",
        ],
        ["forward, operations a sample", "128 × blocks × (2 × weights of a block + 2 × 128 × heads × size of a head)"],
        ["encode, operations a sample", "128 × 2 × width × F"],
        ["corpus", "128 × 6 bytes a sample"],
        ["activations", "128 × width × 2 bytes a sample and hook"],
        ["features", f"128 × (8 + 8 × {arithmetic.FIRING}) bytes a sample"],
        [
            "tables",
            f"{tables}, for examples, statistics and draws, and a sixteenth of the features for sampled firings",
        ],
        ["store, a month", "corpus, activations, features and tables"],
        ["files", f"{_files_of_chunk()} a chunk: activations, features, table, statistics, draws, sampled firings"],
        [
            "rows",
            "2 × F (statistics, lists of examples) + 2 × min(samples, F × K) (samples that an example names, lists of "
            "their features): they stop growing there; draws are F lists more",
        ],
        [
            "database",
            f"F × K × {arithmetic.rate('bytes_row_example'):.0f} bytes at most, whatever the number of samples",
        ],
        ["events", f"{chunk_events[0]:.0f} a chunk; {chunk_events[1]:.0f} if only tables are kept"],
    ]
    return table(["column", "formula"], rows)


def _files_of_chunk() -> int:
    """Activations, features, the table and what stands beside it."""
    from extraction_assets.stores.chunk_names import COMPANIONS

    return 3 + len(COMPANIONS)


def scaling_bends() -> str:
    """What takes longest on one host of GPUS, at three sizes, and what moves it."""
    header = ["samples", "model", "F", "`chunk_size`", *(f"{part}, h" for part in Hours._fields)]
    header += ["memory of activations", "bends first", "then"]
    rows = []
    for samples in SIZES:
        chunk = arithmetic.chunk_size(samples, _most_chunks())
        for model in MODELS:
            hours = arithmetic.hours(model, samples, chunk)
            sizes = [f"{samples:,}", model.name, f"{model.features:,}", f"{chunk:,}"]
            memory = _size(arithmetic.activation_memory(model, chunk))
            alone = hours._replace(corpus=0.0, activations=0.0, features=0.0)
            rows.append([*sizes, *map(_number, hours), memory, longest(hours), longest(alone)])
    return table(header, rows)


def scaling_remedies() -> str:
    """What moves each part."""
    return table(["part", "what moves it"], [[part, remedy] for part, remedy in REMEDIES.items()])


def longest(hours: Hours) -> str:
    """The part that takes most hours."""
    return max(Hours._fields, key=lambda part: getattr(hours, part))


def _number(value: float) -> str:
    """Two significant digits, as many as the inputs are good for."""
    if value == 0:
        return "0"
    if value >= 10:
        digits = len(str(int(value))) - 2
        return f"{round(value, -digits):,.0f}"
    return f"{float(f'{value:.2g}'):.6f}".rstrip("0").rstrip(".")


def _size(count: float) -> str:
    """Bytes, in two significant digits."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= factor:
            return f"{_number(count / factor)} {unit}"
    return f"{_number(count / 1e6)} MB"
