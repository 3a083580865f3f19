"""The device that a run computes on, and how it uses it."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from extraction_assets.resources.checked_fields import NO_BOUND, Count, Device, Gigabytes, VectorizationBatchSize

if TYPE_CHECKING:
    import torch

    from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch


def vectorized_by_default() -> bool:
    """``USE_VECTORIZED_EXTRACTION``: 1, true, yes, on (the default) or 0, false, no, off."""
    text = os.environ.get("USE_VECTORIZED_EXTRACTION", "").strip().lower()
    if text in ("", "1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"USE_VECTORIZED_EXTRACTION is {text!r}; use true or false")


_PRECISIONS = ("highest", "high", "medium")


def _read_now(field: str, value: Any) -> Any:
    """The value of an environment variable for a field whose type Dagster gives no ``EnvVar``; others as they are."""
    if not isinstance(value, dg.EnvVar) or field not in ("vectorized", "compile_model", "matmul_precision"):
        return value
    text = value.get_value()
    if text is None:
        raise ValueError(f"the environment variable {value.env_var_name} is not set, which gpu.{field} is from")
    allowed = _PRECISIONS if field == "matmul_precision" else ("true", "false", "1", "0", "yes", "no", "on", "off")
    if text.strip().lower() not in allowed:
        words = ", ".join(allowed)
        raise ValueError(f"gpu.{field} is {text!r}, from the environment variable {value.env_var_name}: use {words}")
    return text.strip().lower()


class GpuResource(dg.ConfigurableResource):
    """The GPU (or CPU) of a run, and which engine works on it. Missing and empty fields mean the defaults."""

    # Descriptions name the defaults: the backfill dialog shows fields and descriptions, but scaffolds nothing.

    device: Device = Field(
        default="auto",
        description="`auto` leases a free GPU of this host, waiting while all are busy, and is the CPU if there is no "
        "GPU; or `cuda:1` (a certain GPU, without a lease), or `cpu`. Default: auto.",
    )
    batch_size: Count = Field(default=128, description="Samples of one forward pass of the model. Default: 128.")
    vectorization_batch_size: VectorizationBatchSize = Field(
        default="auto",
        description="Samples reduced at once: `auto` (from the memory that is free) or a positive whole number. "
        "Changes memory and speed, never a result. Default: auto.",
    )
    vectorized: bool = Field(
        default_factory=vectorized_by_default,
        description="Use the vectorized engine; false is the sequential legacy loop, far slower, with the same "
        "result. Default: the environment variable `USE_VECTORIZED_EXTRACTION`, else true.",
    )
    num_workers: Count = Field(default=8, description="Threads that tokenize the corpus. Default: 8.")
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        default="high",
        description="torch's float32 matmul precision while the SAE encodes (`high` is TF32 on a GPU). Default: high.",
    )
    compile_model: bool = Field(
        default=False,
        description="Compile the model's blocks by `torch.compile`: the first run on a machine waits 5 to 10 seconds "
        "for a faster forward pass, later ones about 1; pays in runs of many 100,000 samples; last bits may differ. "
        "Default: False.",
    )
    memory_budget_gb: Gigabytes = Field(
        default=NO_BOUND,  # a word, because the Launchpad scaffolds no field with a null default
        validate_default=True,
        description="Upper bound in GiB on the device memory that `auto` plans with. Default: none, all that is free.",
    )

    def __init__(self, **fields: Any) -> None:
        # Dagster shows as a field's default what the constructor was given, and no default of a default_factory.
        given = {name: _read_now(name, value) for name, value in fields.items() if value is not None}
        super().__init__(**{"vectorized": vectorized_by_default(), **given})

    @contextlib.contextmanager
    def use_device(self, logger: logging.Logger) -> "Iterator[torch.device]":
        """The device to compute on; a leased GPU is held until the block ends, or the process however it ends."""
        from extraction_assets.resources.device import choose_device

        with choose_device(self.device, logger) as device:
            yield device

    @contextlib.contextmanager
    def use_idle_device(self, logger: logging.Logger) -> "Iterator[torch.device]":
        """As ``use_device``, but with ``auto`` the CPU where all GPUs are leased: for work that a CPU does too."""
        from extraction_assets.resources.device import choose_idle_device

        with choose_idle_device(self.device, logger) as device:
            yield device

    def memory_gb(self, device: "torch.device") -> float:
        """GiB of the device's memory that may be planned with now."""
        from extraction_assets.engine.chunk_pass.batching import available_memory_gb

        return available_memory_gb(device, self.memory_budget_gb)

    def vectorization_batch(
        self, device: "torch.device", latent_dim: int, seq_len: int, logger: logging.Logger
    ) -> "AdaptiveBatch":
        """The batch to reduce at once, for SAEs of at most ``latent_dim`` features; call it after loading the model."""
        from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch, calculate_optimal_vectorization_batch

        size = self.vectorization_batch_size
        if size == "auto":
            size = calculate_optimal_vectorization_batch(self.memory_gb(device), latent_dim, seq_len)
        return AdaptiveBatch(size, logger)
