"""In which shapes and precision a text that people try is computed: as the stored chunks were, where that can be."""

import contextlib
from typing import Any, NamedTuple

import torch

from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.one_chunk import numerics_record
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources import GpuResource
from extraction_assets.stores.sealed import DamagedFileError


class Numerics(NamedTuple):
    """In which shapes and precision a text is computed."""

    forward_batch: int
    batch_size: int
    """Whose tiles the SAE encodes in."""
    matmul_precision: str
    compiled: bool
    stored: dict[str, Any] | None
    """The record of the stored chunks that this follows, or cannot follow on this device."""


def stored_numerics(plan: ExtractionPlan, sae: str) -> dict[str, Any] | None:
    """The numerics record of an SAE's first stored chunk; None if there is no chunk of the current settings."""
    for chunk in plan.settings.chunks:
        if plan.chunk_state(TOP_K_TABLE, chunk, sae) == "done":
            with contextlib.suppress(FileNotFoundError, DamagedFileError):
                numerics = plan.store.record(plan.chunk_path(TOP_K_TABLE, chunk, sae)).get("numerics")
                return numerics if isinstance(numerics, dict) else None
    return None


def choose_numerics(gpu: GpuResource, device: torch.device, stored: dict[str, Any] | None) -> Numerics:
    """As the stored chunks were computed, if that was on such a device: last bits depend on a batch's shape. On another
    device they differ anyway: a CPU then runs no more samples at once than a short text has."""
    batch = gpu.batch_size if device.type == "cuda" else 1
    chosen = Numerics(batch, batch, gpu.matmul_precision, False, stored)
    if stored is None:
        return chosen
    forward = stored.get("activations") or stored
    here = numerics_record(device, "", PassSettings(1, 1))["device"]
    sizes = forward.get("batch_size"), stored.get("batch_size")
    forward_batch, batch_size = (size if isinstance(size, int) and size > 0 else None for size in sizes)
    if forward.get("device") != here or forward_batch is None or batch_size is None:
        return chosen
    precision = stored.get("matmul_precision", gpu.matmul_precision)
    return Numerics(forward_batch, batch_size, precision, bool(forward.get("compiled")), stored)


def compared(numerics: dict[str, Any], stored: dict[str, Any] | None) -> str:
    """What distinguishes a text's numerics record from that of the stored chunks, as one sentence."""
    if stored is None:
        return "no chunk of the current settings is stored, so these numbers cannot be compared with stored ones"
    before = {**stored, **(stored.get("activations") or {})}
    before.pop("activations", None)
    different = sorted(key for key in {*numerics, *before} if numerics.get(key) != before.get(key))
    if not different:
        return "computed as the stored chunks were: a text of the corpus gives the stored numbers"
    return f"last bits may differ from the stored numbers, which were computed with another {', '.join(different)}"
