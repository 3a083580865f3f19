"""The engine's parts, each alone and together, without Dagster and without storing anything."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch
from torch import Tensor

from benchmarks.inputs import SAE_NAME, Engine
from benchmarks.lines import BOTH, FLOOR, LEGACY, Line, rate_line
from benchmarks.measure import Timing, measure_rate, metered, repeated, timed
from benchmarks.options import Options
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.chunks import merge_chunks, run_chunks
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import HookReader, forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask, tile_samples
from extraction_assets.engine.saes.sae import matmul_precision
from extraction_assets.engine.selection.select import (
    sample_maxima,
    select_top_k,
    vectorized_max_activations,
    vectorized_top_k_positions,
)
from extraction_assets.engine.selection.sequential_loop import LegacyHeaps
from extraction_assets.engine.selection.sparse import dense_to_sparse, keep_counted
from extraction_assets.engine.shapes import DrawRules, Samples, SparseFeatures, TopKTable
from extraction_assets.engine.statistics.accumulate import feature_statistics
from extraction_assets.resources import GpuResource

_TOP_POSITIONS = 5
_PLAN_MEMORY_SHARE = 4
"""The plan's dense form needs about 44 bytes an entry; the automatic batch size assumes 12."""
_TURNS = 5
"""Measured passes with each kind of statistics."""
_DENSE_BYTES = 2**30
"""Of the floor's dense features at a time: a forward batch of 128 samples at F = 16,384."""
_EQUALITY_TOP_K = 2
"""Small enough that some of a few samples are not kept."""
_logger = logging.getLogger(__name__)


class Stages:
    """The stages beside Dagster, on one engine."""

    def __init__(self, options: Options, engine: Engine) -> None:
        self._options, self._engine, self._device = options, engine, options.torch_device

    def features_per_token(self) -> float:
        """Features that fire on a counted token, measured on the first batch of the corpus."""
        ids, mask = self._batches()[0]
        outputs, counted = self._hook_output(ids, mask).flatten(0, 1), self._counted(len(ids)).flatten()
        with matmul_precision(self._options.matmul_precision):
            firings = self._engine.sae.encode_sparse(outputs, self._tile, counted)
        return len(firings.tokens) / int(counted.sum())

    def forward(self) -> Iterator[Line]:
        """The model alone, up to the hook."""
        batches = self._batches()
        yield self._rate("forward", "forward alone, eager", lambda count: self._forward(batches, count), ("forward",))

    def floor(self) -> Iterator[Line]:
        """Forward and dense encode and nothing else: tokens lie on the device, and of what is encoded 1 GiB at a time.

        For every architecture the encoder's product, its bias and a ReLU: what selects among them is not counted."""
        batches, encode = self._batches(), self._dense_encode()

        def work(count: int) -> None:
            for ids, mask in self._first(batches, count):
                encode(self._hook_output(ids, mask))

        yield self._rate("floor", FLOOR, work, BOTH)

    def encode(self) -> Iterator[Line]:
        """Encode alone on the hook outputs of one batch: the dense formula, then ours down to the non-zeros."""
        outputs, encode = self._hook_output(*self._batches()[0]), self._dense_encode()
        sae, tile, product = self._engine.sae, self._tile, ("encode",)

        def sparse() -> object:
            with matmul_precision(self._options.matmul_precision):
                return sae.encode_sparse(outputs.flatten(0, 1), tile)

        yield self._repeated("encode", "encode alone, eager dense", len(outputs), lambda: encode(outputs), product)
        yield self._repeated("encode", "encode alone, ours, to non-zeros", len(outputs), sparse, product)

    def legacy(self) -> Iterator[Line]:
        """The sequential loop; forward and encode are not counted, which favours it in every ratio."""
        count = min(self._options.legacy_samples, self._options.engine_samples)
        features, counted = self._encoded(count), self._counted(count)
        heaps = LegacyHeaps(self._options.latent_dim, self._options.top_k)
        seconds: list[float] = []
        with metered(self._device) as usage:
            for row in range(count):
                seconds.append(timed(self._device, partial(heaps.add_sample, features[row], counted[row], row)))
                if sum(seconds) > self._options.time_limit:
                    break
        yield rate_line("legacy", LEGACY, Timing(len(seconds), [sum(seconds)]), usage)

    def dense(self) -> Iterator[Line]:
        """Maxima and top positions over the dense features, as the plan has it; no heap."""
        count = max(1, self._selection_batch() // _PLAN_MEMORY_SHARE)
        features = self._encoded(count)

        def work() -> object:
            return vectorized_max_activations(features), vectorized_top_k_positions(features, _TOP_POSITIONS)

        yield self._repeated("dense", "plan's dense form: max and top positions", count, work)

    def selection(self) -> Iterator[Line]:
        """From encoded features to the top-k table, on the features that the legacy loop had and more."""
        count = self._selection_batch()
        features, counted = self._encoded(count), self._counted(count)
        sparse = dense_to_sparse(features)

        def table(kept: SparseFeatures, maxima: Tensor) -> TopKTable:
            return select_top_k(kept, maxima, 0, self._options.top_k)

        def from_dense() -> TopKTable:
            kept = keep_counted(dense_to_sparse(features), counted)
            return table(kept, sample_maxima(kept))

        def from_sparse() -> object:
            kept = keep_counted(sparse, counted)
            maxima = sample_maxima(kept)
            return table(kept, maxima), feature_statistics(kept, maxima, counted)

        yield self._repeated("selection", "selection alone, dense features to table", count, from_dense)
        name = "selection alone, non-zeros to table and statistics"
        yield self._repeated("selection", name, count, from_sparse)

    def ours(self) -> Iterator[Line]:
        """Tokens to top-k table and statistics on the CPU, as one chunk; then in chunks, merged."""
        sizes = self._options.vectorization_batch_sizes
        for size in sizes:
            yield self._ours(f"ours, vectorization batch {size}", size, self._as_one_chunk)
        yield self._ours(f"ours, vectorization batch {sizes[-1]}, in chunks and merged", sizes[-1], self._in_chunks)

    def statistics(self) -> Iterator[Line]:
        """The same pass with basic and with full statistics, one after the other and again, so that both meet the same
        clocks; all default draws and one sample in sixteen."""
        size = self._options.vectorization_batch_sizes[-1]
        batch, most = self._vectorization_batch(size), self._options.engine_samples
        kinds = {"basic": None, "full": DrawRules()}
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}

        def spent(count: int, draws: DrawRules | None) -> float:
            samples = self._engine.samples.part(0, count)
            return timed(self._device, partial(self._pass, samples, batch, draws=draws))

        least = min(batch.size, most)
        for draws in kinds.values():
            spent(least, draws)  # warms up
        fitting = int(least / spent(least, None) * self._options.time_limit / (2 * _TURNS))
        chunk = self._options.chunk_size if self._device.type == "cuda" else 0  # thresholds begin with each chunk
        count = max(least, min(most, max(fitting, chunk)))
        with metered(self._device) as usage:
            for _ in range(_TURNS):
                for kind, draws in kinds.items():
                    seconds[kind].append(spent(count, draws))
        for kind in kinds:
            timing = Timing(count, seconds[kind])
            yield rate_line("statistics", f"ours, statistics {kind}, vectorization batch {size}", timing, usage)
        ratio = median(seconds["full"]) / median(seconds["basic"])
        yield Line("statistics", "the pass with full statistics takes", ratio, "times", repeats=_TURNS, usage=usage)

    def equality(self) -> Iterator[Line]:
        """The engine's table against the legacy engine's, bit for bit, on a few samples and all features."""
        count = min(self._options.legacy_samples, self._options.engine_samples)
        samples, different = self._engine.samples.part(0, count), []
        with metered(self._device) as usage:
            for top_k in (_EQUALITY_TOP_K, self._options.top_k):
                legacy = self._pass(samples, AdaptiveBatch(count), vectorized=False, top_k=top_k, batch_size=count)
                for size in (1, count):
                    ours = self._pass(samples, AdaptiveBatch(size), top_k=top_k, batch_size=count)
                    columns = zip(TopKTable._fields, table_of(ours), table_of(legacy), strict=True)
                    different += [
                        f"{name}, K = {top_k}, batch {size}" for name, a, b in columns if not torch.equal(a, b)
                    ]
        notes = {"equal": not different, "examples": len(table_of(legacy).neuron_index), "different": different}
        yield Line("equality", "ours equals legacy", None, "", count, None, 1, usage, notes, bool(different))

    def compiled(self) -> Iterator[Line]:
        """The same with each block of the model compiled, on a GPU; compiling is a line of its own.

        The last stage, because the model stays compiled.
        """
        if self._device.type != "cuda":
            return
        batches, size = self._batches(), self._options.vectorization_batch_sizes[-1]
        with metered(self._device) as usage:
            self._engine.model.compile_blocks()
            seconds = timed(self._device, lambda: self._forward(batches, self._options.batch_size))
        yield Line("compiled", "compiling the blocks", seconds, "s", seconds=seconds, usage=usage)
        yield self._rate(
            "compiled", "forward alone, compiled", lambda count: self._forward(batches, count), ("forward",)
        )
        yield self._ours(f"ours, compiled, vectorization batch {size}", size, self._as_one_chunk)

    def _ours(self, name: str, size: str, run: Callable[[int, AdaptiveBatch], object]) -> Line:
        batch = self._vectorization_batch(size)
        group = self._options.batch_size * -(-batch.size // self._options.batch_size)
        line = self._rate("ours", name, lambda count: run(count, batch), least=group)
        line.notes |= {"vectorization_batch_size": batch.size, "halvings": list(batch.halvings)}
        return line

    def _as_one_chunk(self, count: int, batch: AdaptiveBatch) -> ChunkResult:
        return self._pass(self._engine.samples.part(0, count), batch)

    def _in_chunks(self, count: int, batch: AdaptiveBatch) -> object:
        size, settings = self._options.chunk_size, self._settings()
        chunks = [self._engine.samples.part(start, min(start + size, count)) for start in range(0, count, size)]
        results = list(run_chunks(chunks, self._reader, self._tasks(), settings, batch, self._device))
        return merge_chunks(results, SAE_NAME, settings, self._device)

    def _pass(
        self,
        samples: Samples,
        batch: AdaptiveBatch,
        *,
        vectorized: bool = True,
        top_k: int | None = None,
        batch_size: int | None = None,
        draws: DrawRules | None = None,
    ) -> ChunkResult:
        """``chunk_steps`` from tokens to table and statistics; basic ones without ``draws``."""
        settings = self._settings()._replace(vectorized=vectorized, draws=draws)
        settings = settings._replace(batch_size=batch_size or settings.batch_size, top_k=top_k or settings.top_k)
        reader = forward_pass(self._engine.model, samples, settings.batch_size)
        return run_chunk(samples, reader, self._tasks(), settings, batch, self._device)

    def _settings(self) -> PassSettings:
        options = self._options
        return PassSettings(options.batch_size, options.top_k, matmul_precision=options.matmul_precision)

    def _reader(self, samples: Samples) -> HookReader:
        return forward_pass(self._engine.model, samples, self._options.batch_size)

    def _tasks(self) -> list[SaeTask]:
        return [SaeTask(SAE_NAME, self._options.hook, self._engine.sae)]

    def _vectorization_batch(self, size: str) -> AdaptiveBatch:
        resource = GpuResource(vectorization_batch_size=size)
        return resource.vectorization_batch(self._device, self._options.latent_dim, self._options.positions, _logger)

    def _selection_batch(self) -> int:
        """Samples whose dense features, and what selecting takes, fit the memory."""
        fitting = self._vectorization_batch("auto").size
        return min(self._options.selection_batch, fitting, self._options.engine_samples)

    def _counted(self, count: int) -> Tensor:
        return self._engine.samples.counted[:count].to(self._device)

    def _batches(self) -> list[tuple[Tensor, Tensor]]:
        """Token ids and masks of all samples on the device, by forward batches."""
        samples, size = self._engine.samples, self._options.batch_size
        ids, mask = samples.token_ids.to(self._device), samples.attention_mask.to(self._device)
        return list(zip(ids.split(size), mask.split(size), strict=True))

    def _first(self, batches: list[tuple[Tensor, Tensor]], count: int) -> list[tuple[Tensor, Tensor]]:
        return batches[: max(1, count // self._options.batch_size)]

    def _forward(self, batches: list[tuple[Tensor, Tensor]], count: int) -> None:
        for ids, mask in self._first(batches, count):
            self._hook_output(ids, mask)

    def _hook_output(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self._engine.model.activations(ids, mask)[self._options.hook]

    @property
    def _tile(self) -> int:
        """Tokens that the engine encodes in one matrix product."""
        options = self._options
        return tile_samples(options.batch_size, options.positions, options.latent_dim) * options.positions

    def _dense_encode(self) -> Callable[[Tensor], None]:
        """relu(xW + b) of a whole batch [B, T, D] at the configured precision, so many tokens at a time as give 1 GiB;
        all results go to the same memory, as nothing reads them."""
        weight = self._engine.weights.w_enc.to(self._device).contiguous()
        bias = self._engine.weights.b_enc.to(self._device)
        tokens = max(1, _DENSE_BYTES // (4 * self._options.latent_dim))

        def encode(outputs: Tensor) -> None:
            with matmul_precision(self._options.matmul_precision):
                for part in outputs.flatten(0, 1).float().split(tokens):
                    torch.addmm(bias, part, weight).relu_()

        return encode

    def _encoded(self, count: int) -> Tensor:
        """Dense features of the first samples: float32 [count, T, F]."""
        positions, size = self._options.positions, self._options.batch_size
        features = torch.empty(count, positions, self._options.latent_dim, device=self._device)
        rows, step = features.flatten(0, 1), self._tile
        for number, (ids, mask) in enumerate(self._batches()[: -(-count // size)]):
            outputs = self._hook_output(ids, mask).flatten(0, 1)
            for start in range(0, min(len(outputs), len(rows) - number * size * positions), step):
                place = number * size * positions + start
                with matmul_precision(self._options.matmul_precision):
                    encoded = self._engine.sae.encode(outputs[start : start + step])
                rows[place : place + step] = encoded[: len(rows) - place]
        return features

    def _rate(
        self,
        stage: str,
        name: str,
        work: Callable[[int], object],
        products: tuple[str, ...] = BOTH,
        least: int | None = None,
    ) -> Line:
        """A line of a pass over as many samples as the time allows."""
        least, most = least or self._options.batch_size, self._options.engine_samples
        most = max(min(least, most), most // least * least)
        with metered(self._device) as usage:
            timing = measure_rate(self._device, work, least=least, most=most, limit=self._options.time_limit)
        return rate_line(stage, name, timing, usage, products)

    def _repeated(
        self, stage: str, name: str, samples: int, work: Callable[[], object], products: tuple[str, ...] = ()
    ) -> Line:
        """A line of one batch, again and again."""
        with metered(self._device) as usage:
            seconds = repeated(self._device, work, self._options.time_limit)
        return rate_line(stage, name, Timing(samples, seconds), usage, products)


def table_of(result: ChunkResult) -> TopKTable:
    """The table of the only SAE."""
    return result.saes[SAE_NAME].table
