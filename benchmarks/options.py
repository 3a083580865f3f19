"""Options of a benchmark: shapes, sizes and limits."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.shapes import SHAPES, fill_shape

ARCHITECTURES = ("relu", "jumprelu", "gated", "topk")
MOST_FEATURES = 2**20

_ALONE = ("forward", "floor", "encode", "legacy", "dense", "selection")
ENGINE_STAGES = (*_ALONE, "ours", "statistics", "equality", "compiled")
DAGSTER_STAGES = ("dagster", "dagster-activations")
GPUS_STAGES = ("gpus", "backfill", "shared")
"""Parts that several GPUs of one host do, which run if they are named alone."""
STAGES = ("ceilings", *ENGINE_STAGES, "saes", *DAGSTER_STAGES, "daemon", *GPUS_STAGES)
"""The parts of a benchmark, in the order in which they run."""


@dataclass(frozen=True)
class Options:
    """Every option of the command line, with the defaults of the device filled in."""

    device: str
    samples: tuple[int, ...]
    json: Path | None
    only: tuple[str, ...]
    time_limit: float
    folder: Path | None
    shape: str
    blocks: int
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    positions: int
    architecture: str
    latent_dim: int
    features_per_token: float
    top_k: int
    chunk_size: int
    batch_size: int
    vectorization_batch_sizes: tuple[str, ...]
    matmul_precision: str
    compile_model: bool
    statistics: str
    to_commit: bool
    gpus: tuple[int, ...]
    keep: tuple[str, ...]
    max_engine_samples: int
    legacy_samples: int
    saes: int
    selection_batch: int
    copy_mib: int
    matmul_size: int

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def hook(self) -> str:
        """The last block."""
        return f"layers.{self.blocks - 1}"

    @property
    def engine_samples(self) -> int:
        """Samples that are ready for the stages without Dagster."""
        return min(max(self.samples), self.max_engine_samples)


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """The options of a command line; ends the program if they are wrong."""
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    on_gpu = torch.device(values["device"]).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    if values["device"] == "cuda":
        values["device"] = f"cuda:{torch.cuda.current_device()}"
    for name, gpu, cpu in (("batch_size", 128, 8), ("copy_mib", 1024, 128), ("matmul_size", 8192, 1024)):
        values[name] = values[name] or (gpu if on_gpu else cpu)
    fill_shape(values)
    unknown = set(values["only"]) - set(STAGES)
    if unknown:
        parser.error(f"--only: no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if values["latent_dim"] > MOST_FEATURES:
        parser.error(f"--latent-dim: at most {MOST_FEATURES:,} features")
    if on_gpu and max(values["gpus"]) > torch.cuda.device_count() and set(GPUS_STAGES) & set(values["only"]):
        parser.error(f"--gpus: torch sees {torch.cuda.device_count()}")
    return Options(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extraction",
        description="Measures an extraction beside the hardware's ceilings, the eager floor and the legacy loop.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for add_options in (_add_measured, _add_model, _add_sae, _add_pass, _add_sizes):
        add_options(parser.add_argument)
    return parser


def _add_measured(add: Callable[..., object]) -> None:
    """What is measured, where, and for how long."""
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cuda:N or cpu")
    add(
        *("--samples", "--sizes"),
        type=_counts,
        default=(1000,),
        metavar="N,…",
        help="samples of the whole path through Dagster, once for each; the other stages use the largest",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    one_device = tuple(stage for stage in STAGES if stage not in GPUS_STAGES)
    add("--only", type=_names, default=one_device, metavar="NAME,…", help="run these stages alone")
    add("--time-limit", type=float, default=20.0, metavar="S", help="seconds of repeated measurement of one line")
    add("--folder", type=_full_path, help="where temporary files lie (default: the system's); its disk is measured too")


def _add_model(add: Callable[..., object]) -> None:
    """The language model and its samples."""
    add("--shape", choices=tuple(SHAPES), default="small", help="the sizes that the next options leave open")
    add("--blocks", type=_count, help="blocks of the language model; the hook is the last one")
    add("--width", type=_count, help="D, the model's width")
    add("--heads", type=_count, help="attention heads")
    add("--key-value-heads", type=_count, help="heads of keys and values")
    add("--head-size", type=_count, help="width of an attention head")
    add("--intermediate", type=_count, help="width of the MLPs")
    add("--vocabulary", type=_count, help="tokens of the vocabulary")
    add(*("--positions", "--context-length"), type=_count, default=128, metavar="T", help="positions of a sample")


def _add_sae(add: Callable[..., object]) -> None:
    """The SAE and what is kept of its features."""
    add("--architecture", choices=ARCHITECTURES, default="relu", help="of the SAE")
    add("--latent-dim", type=_count, default=16384, help=f"F, features of the SAE, at most {MOST_FEATURES:,}")
    add("--features-per-token", type=float, default=60.0, help="that shall fire; k of a TopK")
    add("--top-k", type=_count, default=100, help="K, examples kept for a feature")


def _add_pass(add: Callable[..., object]) -> None:
    """How an extraction runs."""
    add("--chunk-size", type=_count, default=5000, help="samples of a chunk")
    add("--batch-size", type=_count, help="samples of a forward pass (default: 128 on a GPU, 8 on a CPU)")
    add(
        "--vectorization-batch-sizes",
        type=_names,
        default=("1", "32", "64", "128", "256", "auto"),
        metavar="N,…",
        help="samples reduced at once, a line for each; the path through Dagster takes the last one",
    )
    add("--matmul-precision", choices=("highest", "high", "medium"), default="high", help="of encode")
    add("--compile-model", action="store_true", help="compile the blocks in the path through Dagster")
    add("--statistics", choices=("basic", "full"), default="basic", help="of the path through Dagster")
    add("--to-commit", action="store_true", help="end the path through Dagster with the committed rows")
    add("--gpus", type=_counts, default=(1, 2, 4), metavar="N,…", help="of the parts gpus and backfill: processes")
    add(
        "--keep",
        type=_names,
        default=("tables", "features"),
        metavar="NAME,…",
        help="of the part gpus: what is stored, tables alone, or features too",
    )


def _add_sizes(add: Callable[..., object]) -> None:
    """Sizes of single measurements."""
    add("--max-engine-samples", type=_count, default=20000, help="at most so many samples in one measured pass")
    add("--legacy-samples", type=_count, default=4, help="samples of the legacy loop")
    add("--saes", type=_count, default=12, help="SAEs that share one forward pass, one at each block of a model")
    add("--selection-batch", type=_count, default=256, help="samples of the selection alone, if memory allows")
    add("--copy-mib", type=_count, help="size of the copied buffers (default: 1024 on a GPU, 128 on a CPU)")
    add("--matmul-size", type=_count, help="side of the multiplied matrices (default: 8192 on a GPU, 1024 on a CPU)")


def _count(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _full_path(text: str) -> Path:
    return Path(text).absolute()


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))
