"""What only a GPU can show: the same engine on CUDA tensors, and memory that really runs out."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass import sae_pass
from extraction_assets.engine.chunk_pass.batching import (
    AdaptiveBatch,
    available_memory_gb,
    calculate_optimal_vectorization_batch,
)
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import ForwardOutOfMemoryError, forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, chunk_steps, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.chunk_pass.stage_clock import StageClock
from extraction_assets.engine.chunk_pass.staging import HostStaging
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets.engine.saes.formats import SAEWeights, read_checkpoint
from extraction_assets.engine.saes.sae import SAE, load_sae, matmul_precision
from extraction_assets.engine.selection.select import sample_maxima, select_top_k, vectorized_top_k_positions
from extraction_assets.engine.selection.sequential_loop import LegacyHeaps
from extraction_assets.engine.selection.sparse import dense_to_sparse, keep_counted, to_dense
from extraction_assets.engine.shapes import Samples, SparseFeatures
from extraction_assets.engine.statistics.accumulate import _add, feature_statistics
from extraction_assets.engine.statistics.firings import Addition
from extraction_assets.engine.statistics.registry import Statistic
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.conftest import ARCHITECTURES
from extraction_assets_tests.engine.cuda import counted_synchronisations, limited_memory
from extraction_assets_tests.engine.test_cuda_kernels import _wanted
from extraction_assets_tests.tiny import D_MODEL, NUM_FEATURES, make_sae

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)


def _tied_features(n: int, t: int, f: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n * t * f)
    return (torch.randint(-6, 4, (n, t, f), generator=generator) / 4).clamp(min=-0.0)


def _equal(ours: tuple[object, ...], theirs: tuple[object, ...]) -> bool:
    return all(
        a is b is None or torch.equal(torch.as_tensor(a).cpu(), torch.as_tensor(b).cpu())
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize(("n", "t", "f", "k"), [(7, 5, 33, 3), (16, 32, 64, 100), (1, 1, 1, 1), (64, 16, 1000, 10)])
def test_selection_on_the_gpu_equals_the_legacy_loop(n: int, t: int, f: int, k: int) -> None:
    features = _tied_features(n, t, f)
    counted = torch.rand(n, t, generator=torch.Generator().manual_seed(1)) > 0.2
    heaps = LegacyHeaps(f, k)
    for row in range(n):
        heaps.add_sample(features[row], counted[row], 50 + row)
    sparse = keep_counted(dense_to_sparse(features.to(CUDA)), counted.to(CUDA))
    assert _equal(select_top_k(sparse, sample_maxima(sparse), 50, k), heaps.build_heaps())


def test_statistics_on_the_gpu_equal_those_on_the_cpu() -> None:
    features, counted = torch.randn(64, 128, 300).mul(30).exp(), torch.rand(64, 128) > 0.1
    on_cpu = keep_counted(dense_to_sparse(features), counted)
    on_gpu = keep_counted(dense_to_sparse(features.to(CUDA)), counted.to(CUDA))
    theirs = feature_statistics(on_cpu, sample_maxima(on_cpu), counted)
    assert _equal(feature_statistics(on_gpu, sample_maxima(on_gpu), counted.to(CUDA)), theirs)


@pytest.mark.parametrize("merge", ["sum", "max"])
def test_single_amounts_are_added_on_the_gpu_as_on_the_cpu(merge: Literal["sum", "max"]) -> None:
    generator = torch.Generator().manual_seed(3)
    amounts, at = (torch.randint(0, most, (100_000,), generator=generator) for most in (1 << 40, 900))
    statistic, totals = Statistic("one", "int64", None, merge, ""), []
    for device in (torch.device("cpu"), CUDA):
        added = Addition(amounts.to(device), at.to(device), offset=5)
        totals.append(torch.zeros(1000, dtype=torch.int64, device=device))
        _add(totals[-1], statistic, added)
        with counted_synchronisations() as found:
            _add(totals[-1], statistic, added)
        assert found == []
    assert _equal((totals[0],), (totals[1],))


def test_top_positions_on_the_gpu_equal_those_on_the_cpu() -> None:
    features = _tied_features(8, 40, 200)
    assert _equal(vectorized_top_k_positions(features.to(CUDA), 5), vectorized_top_k_positions(features, 5))


@pytest.fixture
def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 300, (40, 16), generator=generator)
    mask = torch.arange(16) < torch.randint(1, 17, (40, 1), generator=generator)
    return Samples(ids, mask, mask.clone(), 1000)


def _run(tiny_folder: Path, samples: Samples, size: int) -> tuple[ChunkResult, AdaptiveBatch]:
    model = load_language_model(local(tiny_folder / "model"), ["layers.0", "layers.1"], device=CUDA)
    tasks = [
        SaeTask("relu", "layers.0", load_sae(tiny_folder / "relu", CUDA)),
        SaeTask("topk", "layers.1", load_sae(tiny_folder / "topk", CUDA)),
    ]
    settings, batch = PassSettings(batch_size=8, top_k=5, keep_features=True), AdaptiveBatch(size)
    reader = forward_pass(model, samples, settings.batch_size)
    return run_chunk(samples, reader, tasks, settings, batch, CUDA, [0, 7]), batch


@pytest.mark.parametrize("size", [1, 3, 32, 256])
def test_a_pass_on_the_gpu_does_not_depend_on_the_vectorization_batch(
    tiny_folder: Path, samples: Samples, size: int
) -> None:
    ours, theirs = (_run(tiny_folder, samples, s)[0].saes for s in (size, 64))
    for name in ("relu", "topk"):
        assert _equal(ours[name].table, theirs[name].table)
        assert _equal(ours[name].statistics, theirs[name].statistics)


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_compiled_blocks_give_nearly_the_same_in_another_way(tiny_folder: Path) -> None:
    folder = tiny_folder / "model"
    plain, model = (load_language_model(local(folder), ["layers.0", "layers.1"], device=CUDA) for _ in range(2))
    model.compile_blocks()
    ids = torch.randint(1, 200, (8, 16), device=CUDA)
    for _ in range(2):
        ours, theirs = (m.activations(ids, torch.ones_like(ids).bool()) for m in (model, plain))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def _everywhere(n: int) -> Samples:
    """n samples of 16 positions, all of which count."""
    mask = torch.ones(n, 16, dtype=torch.bool)
    return Samples(torch.ones(n, 16, dtype=torch.int64), mask, mask, 0)


@pytest.mark.parametrize(("architecture", "n"), [("standard", 40), ("topk", 2048)])
def test_memory_that_runs_out_halves_the_batch_and_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, n: int
) -> None:
    """At F = 65,536 most of the memory goes to the batch (topk: to the features that fire), not to the
    dense tile, which is one sample here."""
    monkeypatch.setattr(sae_pass, "_TILE_TOKENS", 16)
    sae = load_sae(make_sae(tmp_path / "wide", architecture, d_sae=65_536), CUDA)
    hidden = torch.randn(n, 16, D_MODEL, generator=torch.Generator().manual_seed(3)).to(CUDA)

    def run(size: int) -> tuple[ChunkResult, AdaptiveBatch]:
        batch, settings = AdaptiveBatch(size), PassSettings(batch_size=n, top_k=3)
        tasks, read = [SaeTask("wide", "h", sae)], lambda a, b: {"h": hidden[a:b]}
        return run_chunk(_everywhere(n), read, tasks, settings, batch, CUDA, [0]), batch

    gc.collect()
    before = torch.cuda.memory_allocated()  # of the SAE, and workspaces of streams
    torch.cuda.reset_peak_memory_stats()
    expected, whole = run(256)
    assert not whole.halvings
    with limited_memory(before + 0.8 * (torch.cuda.max_memory_allocated() - before)):
        result, batch = run(256)
    assert batch.halvings[0] == min(n, 256)
    assert batch.size < min(n, 256)
    assert _equal(result.saes["wide"].table, expected.saes["wide"].table)
    assert _equal(result.saes["wide"].statistics, expected.saes["wide"].statistics)


class Hungry:
    """A reader of hook outputs that takes 600 MiB for a moment, in the calls from ``first`` on."""

    def __init__(self, hidden: Tensor, first: int) -> None:
        self._hidden, self._first, self.calls = hidden, first, 0

    def __call__(self, start: int, stop: int) -> Mapping[str, Tensor]:
        self.calls += 1
        if self.calls >= self._first:
            torch.empty(600 << 20, dtype=torch.uint8, device=CUDA)
        return {"h": self._hidden[start:stop]}


def _small_task(tmp_path: Path) -> tuple[SaeTask, Tensor]:
    hidden = torch.randn(40, 16, D_MODEL, generator=torch.Generator().manual_seed(3)).to(CUDA)
    return SaeTask("small", "h", load_sae(make_sae(tmp_path / "small"), CUDA)), hidden


def test_a_forward_pass_that_fits_once_garbage_is_given_back_gives_the_same(tmp_path: Path) -> None:
    """600 MiB hang in a cycle of references: only the second try, after a collection, finds 600 MiB of 1 GiB."""
    (task, hidden), settings = _small_task(tmp_path), PassSettings(batch_size=8, top_k=3)
    arguments = [task], settings, AdaptiveBatch(8), CUDA, [0]
    expected = run_chunk(_everywhere(40), lambda a, b: {"h": hidden[a:b]}, *arguments)
    gc.collect()
    gc.disable()
    try:
        with limited_memory(2**30):
            cycle: list[object] = [torch.empty(600 << 20, dtype=torch.uint8, device=CUDA)]
            cycle.append(cycle)
            del cycle
            read = Hungry(hidden, 1)
            result = run_chunk(_everywhere(40), read, *arguments)
    finally:
        gc.enable()
    assert read.calls == 6
    assert _equal(result.saes["small"].table, expected.saes["small"].table)


def test_a_forward_pass_that_does_not_fit_says_what_is_done_and_leaves_no_memory_behind(tmp_path: Path) -> None:
    (task, hidden), settings = _small_task(tmp_path), PassSettings(batch_size=8, top_k=3)
    batch, read = AdaptiveBatch(8), Hungry(hidden, 3)
    gc.collect()
    before = torch.cuda.memory_allocated()
    with limited_memory(2**29):
        steps, yielded = chunk_steps(_everywhere(40), read, [task], settings, batch, CUDA, []), list[int]()
        with pytest.raises(ForwardOutOfMemoryError, match="forward pass of samples 16 to 23 of the chunk") as caught:
            yielded.extend(steps)
    assert (caught.value.done, sum(yielded), batch.halvings) == (16, 16, [])
    assert read.calls == 5  # of the third group's three, the first was ahead of the second group's reduction
    del steps, caught
    gc.collect()
    assert torch.cuda.memory_allocated() <= before


def test_available_memory_respects_the_process_fraction() -> None:
    with limited_memory(2**28):
        assert 0 <= available_memory_gb(CUDA) <= 0.25


@pytest.fixture
def four_saes(sae_folders: dict[str, Path]) -> list[SaeTask]:
    hooks = {"standard": "layers.0", "jumprelu": "layers.1", "topk": "layers.1", "gated": "layers.0"}
    return [SaeTask(name, hooks[name], load_sae(folder, CUDA)) for name, folder in sae_folders.items()]


@pytest.mark.parametrize("keep_features", [False, True])
@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_pass_with_triton_equals_one_without(
    tiny_folder: Path,
    samples: Samples,
    four_saes: list[SaeTask],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    keep_features: bool,
) -> None:
    pytest.importorskip("triton")
    model = load_language_model(local(tiny_folder / "model"), ["layers.0", "layers.1"], device=CUDA)
    samples.counted[:, 0] = False  # the first position is stored but does not count
    settings = PassSettings(batch_size=8, top_k=5, keep_features=keep_features)

    def run(size: int) -> ChunkResult:
        reader = forward_pass(model, samples, settings.batch_size)
        return run_chunk(samples, reader, four_saes, settings, AdaptiveBatch(size), CUDA, [0, 7])

    with_triton = run(size)
    monkeypatch.setattr("extraction_assets.engine.saes.sae.has_triton", lambda: False)
    without = run(64)
    for name, own in with_triton.saes.items():
        other = without.saes[name]
        assert_same(own.table, other.table)
        assert_same(own.statistics, other.statistics)
        assert (own.features is not None) == keep_features
        if own.features is not None and other.features is not None:
            assert_same(own.features, other.features)
        assert own.variance_explained == other.variance_explained
        assert all(torch.equal(dense, other.probe[row]) for row, dense in own.probe.items())


# Copies, clocks and synchronisations


def test_synchronisations_are_noticed() -> None:
    """Or the tests below would show nothing."""
    tensor = torch.ones(5, device=CUDA)
    with counted_synchronisations() as found:
        tensor.nonzero()
        tensor.sum().item()
        tensor.add(1)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("architecture", "keep_features", "special_tokens", "synchronisations"),
    [
        ("standard", False, False, 2),
        ("jumprelu", False, False, 2),
        ("gated", False, False, 2),
        ("topk", False, False, 2),
        ("standard", True, False, 2),
        ("standard", False, True, 2),
        ("standard", True, True, 3),
        ("topk", True, True, 3),
    ],
)
def test_a_batch_synchronises_as_often_as_chunk_steps_says(
    sae_folders: dict[str, Path], architecture: str, keep_features: bool, special_tokens: bool, synchronisations: int
) -> None:
    """Looked at from the 41st sample on: the first 32 are decoded, too. The table is never compacted before its end."""
    pytest.importorskip("triton")
    hidden = torch.randn(96, 16, D_MODEL, generator=torch.Generator().manual_seed(3)).to(CUDA)
    samples = _everywhere(96)
    if special_tokens:
        samples = samples._replace(counted=samples.counted.clone())
        samples.counted[:, 0] = False
    settings = PassSettings(batch_size=8, top_k=5, keep_features=keep_features)
    task, batch = SaeTask(architecture, "h", load_sae(sae_folders[architecture], CUDA)), AdaptiveBatch(8)
    steps = chunk_steps(samples, lambda a, b: {"h": hidden[a:b]}, [task], settings, batch, CUDA, [])
    assert [next(steps) for _ in range(5)] == [8] * 5
    counts = []
    for _ in range(7):
        with counted_synchronisations() as found:
            assert next(steps) == 8
        counts.append(len(found))
    assert counts == [synchronisations] * 7


@pytest.mark.parametrize("tiles", [1, 6])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encoding_synchronises_as_often_for_many_tiles_as_for_one(
    sae_folders: dict[str, Path], architecture: str, tiles: int
) -> None:
    pytest.importorskip("triton")
    sae: SAE = load_sae(sae_folders[architecture], CUDA)
    x = torch.randn(48, D_MODEL, generator=torch.Generator().manual_seed(3)).to(CUDA)
    wanted = _wanted(48)
    sae.encode_sparse(x, 48 // tiles, wanted)  # compiles
    with counted_synchronisations() as found:
        sae.encode_sparse(x, 48 // tiles, wanted)
    assert len(found) == 1


def test_copies_to_the_host_are_pinned_and_equal_after_one_wait() -> None:
    staging, tensors = HostStaging(CUDA), [torch.arange(1 << 20, device=CUDA) + number for number in range(4)]
    with counted_synchronisations() as found:
        copies = [staging.copy(tensor * 2) for tensor in tensors]
    assert found == []
    staging.wait()
    for tensor, copy in zip(tensors, copies, strict=True):
        assert copy.is_pinned()
        assert torch.equal(copy, tensor.cpu() * 2)


def test_parts_are_copied_into_a_buffer_and_what_is_on_the_host_stays() -> None:
    staging, source = HostStaging(CUDA), torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    buffer = staging.buffer(6, 5, dtype=torch.float32)
    for start in range(0, 6, 2):
        staging.copy_into(buffer[start : start + 2], source[start : start + 2].to(CUDA))
    assert staging.copy(source) is source
    staging.wait()
    assert torch.equal(buffer, source)


def test_a_stage_is_timed_without_waiting_for_it() -> None:
    clock, matrix = StageClock(CUDA), torch.randn(4096, 4096, device=CUDA)
    with counted_synchronisations() as found:
        for name in ("encode", "select", "encode"):
            with clock.stage(name):
                matrix = matrix @ matrix
    assert found == []
    seconds = clock.seconds()
    assert seconds.keys() == {"encode", "select"}
    assert 0 < seconds["select"] < seconds["encode"] < 5
    assert clock.seconds() == seconds


def test_a_chunk_on_the_gpu_gives_the_seconds_of_its_stages(tmp_path: Path) -> None:
    task, hidden = _small_task(tmp_path)
    settings = PassSettings(batch_size=8, top_k=3)
    read = lambda a, b: {"h": hidden[a:b] * 1.0}  # noqa: E731
    result = run_chunk(_everywhere(40), read, [task], settings, AdaptiveBatch(8), CUDA, [])
    assert result.stage_seconds.keys() == {"forward", "encode", "select"}
    assert all(seconds > 0 for seconds in result.stage_seconds.values())
    assert len(result.saes["small"].statistics.sample_count) == NUM_FEATURES


def test_a_forward_pass_that_fits_only_while_nothing_else_runs_is_not_queued_ahead(tmp_path: Path) -> None:
    """The call of the second group fails ahead of the first one's reduction and succeeds after it."""
    (task, hidden), settings, ranges = _small_task(tmp_path), PassSettings(batch_size=8, top_k=3), list[int]()

    def read(start: int, stop: int) -> Mapping[str, Tensor]:
        ranges.append(start)
        if len(ranges) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"h": hidden[start:stop] * 1.0}

    arguments = [task], settings, AdaptiveBatch(8), CUDA, [0]
    result = run_chunk(_everywhere(40), read, *arguments)
    expected = run_chunk(_everywhere(40), lambda a, b: {"h": hidden[a:b]}, *arguments)
    assert ranges == [0, 8, 8, 16, 24, 32]
    assert _equal(result.saes["small"].table, expected.saes["small"].table)
    assert _equal(result.saes["small"].statistics, expected.saes["small"].statistics)


def test_no_token_has_firings_on_the_gpu_where_there_are_none(sae_folders: dict[str, Path]) -> None:
    for folder in sae_folders.values():
        nothing = load_sae(folder, CUDA).encode_sparse(torch.empty(0, D_MODEL, device=CUDA))
        assert [len(column) for column in nothing] == [0, 0, 0, 0]


@pytest.mark.parametrize(("latent_dim", "gib"), [(131_072, 24), (2**20, 64)])
def test_very_many_features_fit(latent_dim: int, gib: int) -> None:
    """Samples of 128 tokens at a width of 768: a sample's dense features alone are 64 MiB, and 512 MiB."""
    width, n, generator = 768, 48, torch.Generator(CUDA).manual_seed(0)
    weights = SAEWeights(
        architecture="standard",
        w_enc=torch.randn(width, latent_dim, device=CUDA, generator=generator) / width**0.5,
        b_enc=torch.full((latent_dim,), -3.5, device=CUDA),  # about one feature in 4,000 fires
        w_dec=torch.zeros(latent_dim, width, device=CUDA),
        b_dec=torch.zeros(width, device=CUDA),
    )
    hidden = torch.randn(n, 128, width, device=CUDA, generator=generator)
    with limited_memory(gib * 2**30):
        task = SaeTask("wide", "h", SAE(weights, CUDA))
        auto = calculate_optimal_vectorization_batch(available_memory_gb(CUDA), latent_dim, 128)
        batch, mask = AdaptiveBatch(auto), torch.ones(n, 128, dtype=torch.bool)
        samples, settings = Samples(torch.ones(n, 128, dtype=torch.int64), mask, mask, 0), PassSettings(16, top_k=100)
        result = run_chunk(samples, lambda a, b: {"h": hidden[a:b]}, [task], settings, batch, CUDA, [0])
    assert batch.halvings == []
    assert len(result.saes["wide"].table.neuron_index) > latent_dim / 2


@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
def test_the_input_is_prepared_on_the_gpu_as_on_the_cpu(tmp_path: Path, normalize: str) -> None:
    folder = make_sae(tmp_path / "sae", normalize_activations=normalize)
    x = torch.randn(48, D_MODEL, generator=torch.Generator().manual_seed(3))
    options = {"center_input": True}
    on_cpu, on_gpu = (SAE(read_checkpoint(folder, **options), device) for device in ("cpu", CUDA))
    with matmul_precision("highest"):
        torch.testing.assert_close(on_gpu.encode(x.to(CUDA)).cpu(), on_cpu.encode(x), rtol=1e-5, atol=2e-6)
        features = on_gpu.encode_sparse(x.to(CUDA))
    sparse = SparseFeatures(*features[:3], 4, 12, NUM_FEATURES)
    decoded = on_gpu.decode(sparse, x.to(CUDA).view(4, 12, D_MODEL)).cpu()
    dense = to_dense(SparseFeatures(*(column.cpu() for column in features[:3]), 4, 12, NUM_FEATURES))
    by_hand = on_cpu.decode(dense_to_sparse(dense), x.view(4, 12, D_MODEL))
    torch.testing.assert_close(decoded, by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_tf32_changes_is_printed(tmp_path: Path, architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a bound of the engine's, but of TF32's 10 bits: a feature near its threshold may fire in one alone."""
    sae = load_sae(make_sae(tmp_path / "sae", architecture, d_in=768, d_sae=4096), CUDA)
    x = torch.randn(2048, 768, generator=torch.Generator().manual_seed(3)).to(CUDA)
    with matmul_precision("highest"):
        exact = sae.encode(x)
    with matmul_precision("high"):
        tf32 = sae.encode(x)
    both = (exact > 0) & (tf32 > 0)
    relative = ((tf32 - exact).abs() / exact.abs().amax())[both]
    alone = int(((exact > 0) != (tf32 > 0)).sum())
    with capsys.disabled():
        print(
            f"\n{architecture}: TF32 changes features by at most {float(relative.max()):.1e}, on average "
            f"{float(relative.mean()):.1e} of the largest; {alone} of {int((exact > 0).sum())} fire in one alone"
        )
    assert 0 < float(relative.max()) < 1e-2
