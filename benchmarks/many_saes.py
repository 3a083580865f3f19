"""Several SAEs on one forward pass, against a pass for each."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

from benchmarks.inputs import engine_samples, make_model, make_sae
from benchmarks.lines import Line, rate_line
from benchmarks.measure import measure_rate, metered
from benchmarks.options import Options
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.resources import GpuResource

_logger = logging.getLogger(__name__)


def many_saes(options: Options, folder: Path) -> Iterator[Line]:
    """Lines of a model with as many blocks as there are SAEs, one at each block: all at once, then one after the
    other, each of which stops the forward pass at its own block."""
    count, device = options.saes, options.torch_device
    options = dataclasses.replace(options, blocks=count)
    make_model(folder / "deep", options)
    hooks = [f"layers.{block}" for block in range(count)]
    tasks = []
    for hook in hooks:
        make_sae(folder / "deep" / hook, folder / "deep", options, hook)
        tasks.append(SaeTask(hook, hook, load_sae(folder / "deep" / hook, device)))
    settings = PassSettings(options.batch_size, top_k=options.top_k, matmul_precision=options.matmul_precision)
    gpu = GpuResource(vectorization_batch_size=options.vectorization_batch_sizes[-1])
    batch = gpu.vectorization_batch(device, options.latent_dim, options.positions, _logger)
    samples = engine_samples(options)
    deep = LocalCheckpoint(folder / "deep")
    whole = load_language_model(deep, hooks, device=device)
    alone = [load_language_model(deep, [hook], device=device) for hook in hooks]

    def at_once(number: int) -> None:
        part = samples.part(0, number)
        run_chunk(part, forward_pass(whole, part, options.batch_size), tasks, settings, batch, device)

    def one_by_one(number: int) -> None:
        part = samples.part(0, number)
        for model, task in zip(alone, tasks, strict=True):
            run_chunk(part, forward_pass(model, part, options.batch_size), [task], settings, batch, device)

    rates = []
    for name, work in ((f"{count} SAEs in one pass", at_once), (f"{count} SAEs, a pass for each", one_by_one)):
        most = options.engine_samples // options.batch_size * options.batch_size or options.engine_samples
        with metered(device) as usage:
            timing = measure_rate(device, work, least=options.batch_size, most=most, limit=options.time_limit)
        rates.append(timing.rate)
        yield rate_line("saes", name, timing, usage)
    yield Line("saes", f"{count} SAEs: one pass is faster by", rates[0] / rates[1], "times")
