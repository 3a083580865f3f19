"""The beginning of a run of chunks: the SAEs on one batch of its first chunk, and the disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from extraction_assets.catalog import MODEL_ACTIVATIONS, SAE_FEATURES, TOP_K_TABLE
from extraction_assets.early_checks.batch import (
    FORWARD_SAMPLES,
    examine_saes,
    first_batch,
    model_outputs,
    refuse_full_disk,
)
from extraction_assets.engine.findings import Finding, log_and_raise
from extraction_assets.engine.models.alone import examine_alone
from extraction_assets.engine.preflight.sanity import SaeSanity
from extraction_assets.execution.damage import usable_activations
from extraction_assets.execution.keys import Target
from extraction_assets.planning.disk_estimate import Part, Sizes, estimate_files
from extraction_assets.planning.plan import ExtractionPlan

if TYPE_CHECKING:
    from extraction_assets.assets.chunks.run import ChunkRun


def examine_start(run: "ChunkRun", missing_targets: Mapping[str, Sequence[Target]]) -> None:
    """Raises HookError, SanityError or NotEnoughDiskError where a run cannot succeed, before its first chunk.

    ``missing_targets`` is what each chunk lacks. SAEs whose stored features are read were examined when these were
    made. Looks at one batch of the first chunk, with the model and SAEs that the run needs anyway, and changes no
    result.
    """
    plan, settings = run.plan, run.plan.settings
    key, targets = next(iter(missing_targets.items()))
    encoded = {name: sae for name, sae in run.saes.items() if _is_encoded(plan, key, targets, name)}
    sanity: dict[str, SaeSanity] = {}
    unguarded = next((key for key, own in missing_targets.items() if _runs_the_model(run, key, own)), None)
    if encoded:
        batch = first_batch(plan, key)
        stored = _stored_outputs(run, key, targets, len(batch.samples.token_ids))
        model = run.model if stored is None else None
        outputs, alone = stored or {}, list[Finding]()
        if model is not None:
            outputs = model_outputs(model, batch.samples, run.logger)
            alone = examine_alone(model, batch.samples, outputs)
            unguarded = None
        precision = run.gpu.matmul_precision
        sanity, findings = examine_saes(settings, encoded, outputs, batch, model, precision, run.logger)
        broken = any(found.not_finite for found in sanity.values())  # says more than that such samples differ
        log_and_raise(findings if broken else [*alone, *findings], run.logger)
    if unguarded is not None:
        _guard_forward(run, unguarded)
    to_come = _to_come(plan, missing_targets)
    sizes = Sizes(
        run.model.hook_widths() if (MODEL_ACTIVATIONS, None) in to_come else {},
        {name: sae.latent_dim for name, sae in run.saes.items()},
        run.model.dtype.itemsize if (MODEL_ACTIVATIONS, None) in to_come else None,
        {name: found.mean_l0 for name, found in sanity.items() if found.tokens},
    )
    refuse_full_disk(estimate_files(settings, plan.store, sizes, to_come), plan.store, settings.name, run.logger)


def _runs_the_model(run: "ChunkRun", key: str, targets: Sequence[Target]) -> bool:
    """Whether a chunk needs hook outputs that are not stored, or is to store them."""
    if any(target.asset == MODEL_ACTIVATIONS for target in targets):
        return True
    encoded = any(_is_encoded(run.plan, key, targets, name) for name in run.saes)
    return encoded and run.plan.chunk_state(MODEL_ACTIVATIONS, key) != "done"


def _guard_forward(run: "ChunkRun", key: str) -> None:
    """HookError where samples of a chunk are not what they are alone; for a run whose first batch no SAE looks at."""
    samples = first_batch(run.plan, key).take(FORWARD_SAMPLES).samples
    log_and_raise(examine_alone(run.model, samples, model_outputs(run.model, samples, run.logger)), run.logger)


def _is_encoded(plan: ExtractionPlan, key: str, targets: Sequence[Target], sae: str) -> bool:
    """Whether an SAE encodes a chunk: something of it is asked for, and stored features do not do."""
    own = {target.asset for target in targets if target.sae == sae}
    if own == {TOP_K_TABLE} and plan.settings.corpus.exclude_outlier_norms is None:
        return plan.chunk_state(SAE_FEATURES, key, sae) != "done"
    return bool(own)


def _stored_outputs(run: "ChunkRun", key: str, targets: Sequence[Target], count: int) -> dict[str, Tensor] | None:
    """The first samples of stored activations; None where the model is to run."""
    asked = any(target.asset == MODEL_ACTIVATIONS for target in targets)
    usable = None if asked else usable_activations(run.plan, key, run.plan.settings.hooks, run.logger)
    if usable is None:
        return None
    return {hook: output[:count].to(run.device) for hook, output in usable[0].items()}


def _to_come(plan: ExtractionPlan, missing_targets: Mapping[str, Sequence[Target]]) -> dict[Part, int]:
    """Samples of each asset that are asked for and not on disk: a file that is there is replaced by an equal one."""
    found = Counter[Part]()
    for key, targets in missing_targets.items():
        rows = plan.settings.chunk_rows(key)
        for target in targets:
            if plan.chunk_state(target.asset, key, target.sae) != "done":
                found[target.asset, target.sae] += rows.stop - rows.start
    return dict(found)
