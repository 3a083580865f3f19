"""Forward passes that are replayed on a GPU: the bits of the eager pass, and eager wherever one cannot be recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.models.forward import replay
from extraction_assets.engine.models.forward.hooked import LanguageModel
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.cuda import counted_synchronisations

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)


def load(folder: Path, hooks: list[str]) -> LanguageModel:
    return load_language_model(local(folder / "model"), hooks, device=CUDA)


def batch(seed: int, rows: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 300, (rows, 16), generator=generator)
    mask = torch.arange(16) < torch.randint(1, 17, (rows, 1), generator=generator)
    return ids.to(CUDA), mask.to(CUDA)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for hook, output in found.items():
        assert torch.equal(output, expected[hook]), hook


def repeated(model: LanguageModel, count: int = 8) -> None:
    for seed in range(count):
        assert_equal(model.repeated_activations(*batch(seed)), model.activations(*batch(seed)))


def test_replayed_passes_give_the_bits_of_eager_ones(tiny_folder: Path) -> None:
    model = load(tiny_folder, ["layers.0", "layers.1"])
    repeated(model)
    assert model._replay.is_recorded


def test_a_recorded_pass_calls_attention_as_an_eager_one_does(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5.17 would give a recorded pass a mask, and so other and slower kernels."""
    model, attention = load(tiny_folder, ["layers.1"]), torch.nn.functional.scaled_dot_product_attention
    calls = dict[bool, set[tuple[bool, bool]]]()

    def noting(*given: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, **rest: Any) -> Tensor:
        recording = torch.cuda.is_current_stream_capturing()
        calls.setdefault(recording, set()).add((attn_mask is None, is_causal))
        return attention(*given, attn_mask=attn_mask, is_causal=is_causal, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    repeated(model)
    assert calls[True] == calls[False] == {(True, True)}


def test_outputs_stay_when_the_next_batch_is_replayed(tiny_folder: Path) -> None:
    model = load(tiny_folder, ["layers.0"])
    repeated(model)
    first = model.repeated_activations(*batch(7))
    model.repeated_activations(*batch(8))
    assert_equal(first, model.activations(*batch(7)))


def test_another_shape_and_other_hooks_are_recorded_anew(tiny_folder: Path) -> None:
    model = load(tiny_folder, ["layers.0"])
    repeated(model)
    assert_equal(model.repeated_activations(*batch(0, rows=5)), model.activations(*batch(0, rows=5)))
    with model.also_reading(["layers.1"]):
        repeated(model, 4)
        assert not model._replay.is_recorded
        repeated(model, 2)
        assert model._replay.is_recorded
    repeated(model)


def test_a_replayed_pass_waits_for_nothing(tiny_folder: Path) -> None:
    model = load(tiny_folder, ["layers.1"])
    repeated(model)
    given = batch(9)
    with counted_synchronisations() as found:
        model.repeated_activations(*given)
    assert found == []


def test_a_pass_that_keeps_the_gpu_busy_is_not_recorded(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_LEAST_HOST_SHARE", 1.0)  # as if the host needed less
    model = load(tiny_folder, ["layers.1"])
    repeated(model)
    assert not model._replay.is_recorded


def looks_at_a_number(_module: Any, _args: Any, output: Tensor) -> Tensor:
    return output * 2 if float(output.sum()) > 0 else output


def waits_beside_the_dispatcher(_module: Any, _args: Any, output: Tensor) -> Tensor:
    torch.cuda.current_stream().synchronize()
    return output


@pytest.mark.parametrize("hook", [looks_at_a_number, waits_beside_the_dispatcher])
def test_a_model_that_cannot_be_recorded_stays_eager_and_leaves_no_memory_behind(
    tiny_folder: Path, hook: Callable[..., Tensor]
) -> None:
    model = load(tiny_folder, ["layers.1"])
    model.module.get_submodule("layers.0.mlp").register_forward_hook(hook)
    repeated(model)
    assert not model._replay.is_recorded
    before, other = torch.cuda.memory_allocated(), torch.cuda.Stream()
    for _ in range(3):  # memory that two streams share is freed again
        shared = torch.empty(1 << 20, device=CUDA)
        shared.record_stream(other)
        del shared
        torch.cuda.synchronize()
        torch.empty(1, device=CUDA)
    assert torch.cuda.memory_allocated() <= before + 512
    torch.cuda.synchronize()


def test_random_numbers_can_be_drawn_after_a_recording_that_failed(tiny_folder: Path) -> None:
    model = load(tiny_folder, ["layers.1"])
    model.module.get_submodule("layers.0.mlp").register_forward_hook(waits_beside_the_dispatcher)
    repeated(model)
    assert not model._replay.is_recorded
    assert torch.rand(3, device=CUDA).isfinite().all()


def test_a_recording_that_gives_other_numbers_is_not_used(tiny_folder: Path) -> None:
    """What a module reads from outside is as it was when the pass was recorded."""
    model, calls = load(tiny_folder, ["layers.1"]), list[int]()

    def counting(_module: Any, _args: Any, output: Tensor) -> Tensor:
        calls.append(1)
        return output * len(calls)

    handle = model.module.get_submodule("layers.0.mlp").register_forward_hook(counting)
    for seed in range(7):
        model.repeated_activations(*batch(seed))
    assert not model._replay.is_recorded
    handle.remove()
