"""The beginning of a run of chunks: the SAEs on one batch of its first chunk, and the disk."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from extraction_assets.assets.chunks.compute import pass_settings
from extraction_assets.catalog import MODEL_ACTIVATIONS
from extraction_assets.early_checks.batch import (
    FORWARD_SAMPLES,
    examine_saes,
    first_batch,
    model_outputs,
    refuse_full_disk,
)
from extraction_assets.engine.chunk_pass.rehearsal import pinned_sizes, rehearse
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.staging import reserve_pinned
from extraction_assets.engine.findings import Finding, log_and_raise
from extraction_assets.engine.models.padding_check import examine_alone
from extraction_assets.engine.preflight.sanity import SaeSanity
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution.keys import Target
from extraction_assets.execution.loaded_models import LoadedModels
from extraction_assets.execution.stored_inputs import activations_suffice, features_suffice, read_stored_activations
from extraction_assets.execution.warm_up import WarmUp
from extraction_assets.planning.disk_estimate import Part, Sizes, estimate_files
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk


def examine_start(
    plan: ExtractionPlan, loaded: LoadedModels, missing_targets: Mapping[Chunk, Sequence[Target]], warm_up: WarmUp
) -> None:
    """Raises HookError, SanityError or NotEnoughDiskError if a run cannot succeed, before its first chunk.

    ``missing_targets`` has what is to be computed for each chunk. SAEs with stored features were examined when these
    were made. Looks at one batch of the first chunk, with the model and SAEs that the run needs anyway, and
    changes no result. What the first chunk would wait for is begun in ``warm_up`` with these samples.
    """
    unguarded = next(
        (chunk for chunk, targets in missing_targets.items() if _runs_the_model(plan, loaded, chunk, targets)), None
    )
    chunk, targets = next(iter(missing_targets.items()))
    sanity: dict[str, SaeSanity] = {}
    encoded = _encoded(plan, loaded, chunk, targets)
    if encoded:
        stored = _stored_outputs(plan, loaded, chunk, targets)
        sanity = _examine_first_batch(plan, loaded, chunk, targets, encoded, stored, warm_up)
        unguarded = unguarded if stored is not None else None
    if unguarded is not None:
        _guard_forward(plan, loaded, unguarded)
    _refuse_full_disk(plan, loaded, _samples_to_come(plan, missing_targets), sanity)


def _examine_first_batch(
    plan: ExtractionPlan,
    loaded: LoadedModels,
    chunk: Chunk,
    targets: Sequence[Target],
    saes: Mapping[str, SAE],
    stored: Mapping[str, Tensor] | None,
    warm_up: WarmUp,
) -> dict[str, SaeSanity]:
    """Tries SAEs on the first samples of a chunk: on ``stored`` hook outputs {hook: [n, T, D]}, else on the model's."""
    batch, logger = first_batch(plan, chunk), loaded.logger
    if stored is not None:
        count = len(batch.samples.token_ids)
        model, alone = None, list[Finding]()
        outputs = {hook: output[:count].to(loaded.device) for hook, output in stored.items()}
    else:
        model = loaded.model
        outputs = model_outputs(model, batch.samples, logger)
        warm_up.begin("a rehearsal", _rehearsal(plan, loaded, chunk, targets, saes, batch.samples, outputs, warm_up))
        alone = examine_alone(model, batch.samples, outputs)
        warm_up.wait()
    precision = loaded.gpu.matmul_precision
    sanity, findings = examine_saes(plan.extraction, saes, outputs, batch, model, precision, logger)
    broken = any(found.not_finite for found in sanity.values())  # says more than that such samples differ
    log_and_raise(findings if broken else [*alone, *findings], logger)
    return sanity


def _rehearsal(
    plan: ExtractionPlan,
    loaded: LoadedModels,
    chunk: Chunk,
    targets: Sequence[Target],
    saes: Mapping[str, SAE],
    samples: Samples,
    outputs: Mapping[str, Tensor],
    warm_up: WarmUp,
) -> Callable[[], None]:
    """A pass over the first samples, and then the memory for the features of three chunks, of which one is computed
    while another is written and one waits."""
    chosen, settings = plan.extraction.saes, pass_settings(plan, loaded, targets)
    tasks = [SaeTask(name, chosen[name].hook, sae, None, chosen[name].hook_out) for name, sae in saes.items()]

    batch_size, chunks = loaded.batch.size, min(3, len(plan.settings.chunks))

    def work() -> None:
        firings = rehearse(samples, outputs, tasks, settings, loaded.device)
        sizes = pinned_sizes(firings, chunk.num_samples, batch_size, chunks)
        warm_up.begin("pinning memory", partial(reserve_pinned, sizes), awaited=False)

    return work


def _runs_the_model(plan: ExtractionPlan, loaded: LoadedModels, chunk: Chunk, targets: Sequence[Target]) -> bool:
    """Whether a chunk needs hook outputs that are not stored, or is to store them."""
    if any(target.asset == MODEL_ACTIVATIONS for target in targets):
        return True
    return not activations_suffice(plan, chunk, targets) and bool(_encoded(plan, loaded, chunk, targets))


def _guard_forward(plan: ExtractionPlan, loaded: LoadedModels, chunk: Chunk) -> None:
    """Raises HookError if a chunk's samples differ from those alone; for runs in which no SAE reads the first batch."""
    model, samples = loaded.model, first_batch(plan, chunk).take(FORWARD_SAMPLES).samples
    log_and_raise(examine_alone(model, samples, model_outputs(model, samples, loaded.logger)), loaded.logger)


def _encoded(plan: ExtractionPlan, loaded: LoadedModels, chunk: Chunk, targets: Sequence[Target]) -> dict[str, SAE]:
    """The SAEs that encode a chunk: a target of theirs is missing, and stored features do not suffice."""
    requested = {target.sae for target in targets}
    return {
        name: sae
        for name, sae in loaded.saes.items()
        if name in requested and not features_suffice(plan, chunk, name, targets, loaded.logger)
    }


def _stored_outputs(
    plan: ExtractionPlan, loaded: LoadedModels, chunk: Chunk, targets: Sequence[Target]
) -> Mapping[str, Tensor] | None:
    """Stored activations {hook: [n, T, D]} of a chunk; None if the model is to run."""
    if not activations_suffice(plan, chunk, targets):
        return None
    found = read_stored_activations(plan, chunk, plan.extraction.hooks, loaded.logger)
    return None if found is None else found[0]


def _refuse_full_disk(
    plan: ExtractionPlan, loaded: LoadedModels, to_come: Mapping[Part, int], sanity: Mapping[str, SaeSanity]
) -> None:
    stores_activations = (MODEL_ACTIVATIONS, None) in to_come
    sizes = Sizes(
        loaded.model.hook_widths() if stores_activations else {},
        {name: sae.latent_dim for name, sae in loaded.saes.items()},
        loaded.model.dtype.itemsize if stores_activations else None,
        {name: found.mean_l0 for name, found in sanity.items() if found.tokens},
    )
    settings, store = plan.settings, plan.store
    refuse_full_disk(estimate_files(settings, store, sizes, to_come), store, settings.name, loaded.logger)


def _samples_to_come(plan: ExtractionPlan, missing_targets: Mapping[Chunk, Sequence[Target]]) -> dict[Part, int]:
    """Samples of each asset that are to be computed and are not on disk: a stored file is replaced by an equal one."""
    found = Counter[Part]()
    for chunk, targets in missing_targets.items():
        for target in targets:
            if plan.chunk_state(target.asset, chunk, target.sae) != "done":
                found[target.asset, target.sae] += chunk.num_samples
    return dict(found)
