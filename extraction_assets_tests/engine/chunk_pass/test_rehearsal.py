"""A pass whose results are dropped; a GPU compiles its kernels by it."""

import pytest
import torch

from extraction_assets.engine.chunk_pass import rehearsal
from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult
from extraction_assets.engine.chunk_pass.rehearsal import pinned_sizes, rehearse
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.saes.sae import SAE
from extraction_assets_tests.engine.chunk_pass.build import CPU, SAMPLES, SETTINGS, TILE, assert_same_result, run_pass

FEW = SAMPLES.part(0, 6)


def test_products_have_a_real_passes_shape_and_the_precision_that_is_set(
    model: LanguageModel, tasks: list[SaeTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, encode_sparse = set(), SAE.encode_sparse

    def noted(self: SAE, x: torch.Tensor, tile: int | None = None, *rest: object) -> object:
        seen.add((tile, torch.get_float32_matmul_precision()))
        return encode_sparse(self, x, tile, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SAE, "encode_sparse", noted)
    rehearse(FEW, forward_pass(model, FEW, 4)(0, 6), tasks, SETTINGS._replace(matmul_precision="medium"), CPU)
    assert seen == {(TILE * SAMPLES.token_ids.shape[1], torch.get_float32_matmul_precision())}


def test_a_pass_after_it_gives_the_same(model: LanguageModel, tasks: list[SaeTask], expected: ChunkResult) -> None:
    rehearse(FEW, forward_pass(model, FEW, 4)(0, 6), tasks, SETTINGS, CPU)
    assert_same_result(run_pass(forward_pass(model, SAMPLES, 4), tasks), expected)


def test_the_sequential_loop_is_not_rehearsed(tasks: list[SaeTask], monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[object]()
    monkeypatch.setattr(rehearsal, "run_chunk", lambda *given: called.append(given))
    rehearse(FEW, {}, tasks, SETTINGS._replace(vectorized=False), CPU)
    assert called == []


def test_it_says_how_many_firings_are_kept_of_a_sample(model: LanguageModel, tasks: list[SaeTask]) -> None:
    outputs = forward_pass(model, FEW, 4)
    found = rehearse(FEW, outputs(0, 6), tasks, SETTINGS, CPU)
    kept = run_pass(outputs, tasks, samples=FEW).saes
    assert found == {name: len(kept[name].features.values) / 6 for name in found}  # type: ignore[union-attr]
    assert found.keys() == {task.name for task in tasks}


def test_memory_is_pinned_for_ids_and_values_of_each_batch() -> None:
    assert pinned_sizes({"a": 10.0, "none kept": 0.0}, 5, 4, 1) == [160, 160, 40, 40]
    assert sum(pinned_sizes({"a": 10.0}, 5, 4, 2)) == 2 * 4 * 10 * 10


def test_no_more_memory_is_pinned_than_a_machine_has_to_spare() -> None:
    sizes = pinned_sizes({"a": float(1 << 20)}, 5000, 256, 2)
    assert 3 << 30 <= sum(sizes) <= 4 << 30
