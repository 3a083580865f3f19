"""What keeps a forward pass from being recorded; test_cuda_replay replays some."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.models.forward.replay import Replay, _HostWatch, _same_bits
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.checkpoints import local

X = torch.arange(6.0).view(2, 3)


def found_in(work: Callable[[Tensor], object]) -> bool:
    with _HostWatch() as watch:
        work(X)
    return watch.found is not None


@pytest.mark.parametrize(
    "work",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 2).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 2],
        lambda x: x.masked_select(x > 2),
        lambda x: x.unique(),
        lambda x: x.to("meta"),
        lambda x: torch.repeat_interleave(x, torch.tensor([1, 2]), dim=0),
    ],
)
def test_an_operator_that_the_host_waits_for_is_found(work: Callable[[Tensor], object]) -> None:
    assert found_in(work)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: torch.where(x > 2, x, 0).cumsum(0),
        lambda x: x[torch.tensor([1, 0])],
        lambda x: x.masked_fill(x > 2, 0).to(torch.bfloat16) @ x.T.to(torch.bfloat16),
        lambda x: (x > 2)[torch.tensor([1])],
        lambda x: x.topk(2).values.clone(),
    ],
)
def test_an_operator_whose_result_stays_on_the_device_is_not(work: Callable[[Tensor], object]) -> None:
    assert not found_in(work)


def test_a_llama_can_be_recorded(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.1"])
    ids, mask = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool)
    model.activations(ids, mask)
    assert not found_in(lambda _: model.activations(ids, mask))


def test_on_a_cpu_repeated_batches_are_ordinary_ones(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.1"])
    ids, mask = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool)
    for _ in range(7):
        found = model.repeated_activations(ids, mask)
    assert torch.equal(found["layers.1"], model.activations(ids, mask)["layers.1"])
    assert not model._replay.is_recorded


def test_bits_are_compared_not_numbers() -> None:
    nan, zero = {"h": torch.tensor([float("nan")])}, {"h": torch.tensor([0.0])}
    assert _same_bits(nan, {"h": nan["h"].clone()})
    assert not _same_bits(zero, {"h": torch.tensor([-0.0])})
    assert not _same_bits(zero, {})


class Given:
    """In place of a recording."""

    def __init__(self) -> None:
        self.outputs = {"h": X}

    def replay(self, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return self.outputs


def test_a_recording_is_kept_for_its_key_and_dropped_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replay, "_record", lambda *_: Given())
    monkeypatch.setattr(Replay, "_timed_run", lambda self, ids, mask: (self._run(ids, mask), 1.0))
    replay, eager = Replay(lambda ids, mask: {"h": ids}), {"h": X + 1}
    outputs = [replay("a", X + 1, X)["h"] for _ in range(7)]
    assert [torch.equal(one, X) for one in outputs] == [False] * 5 + [True] * 2
    replay.forget(except_for="a")
    assert torch.equal(replay("a", X + 1, X)["h"], X)
    assert torch.equal(replay("b", X + 1, X)["h"], eager["h"])
    assert not replay.is_recorded


def test_a_pass_whose_kernels_take_the_host_little_time_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replay, "_record", lambda *_: Given())
    monkeypatch.setattr(Replay, "_timed_run", lambda *_: ({"h": X + 1}, 0.2))
    replay = Replay(lambda ids, mask: {"h": ids})
    assert [torch.equal(replay("a", X + 1, X)["h"], X) for _ in range(7)] == [False] * 7


def test_a_pass_of_another_shape_drops_the_recording(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may keep a mask from pass to pass, which the other shape replaces."""
    monkeypatch.setattr(Replay, "_record", lambda *_: Given())
    monkeypatch.setattr(Replay, "_timed_run", lambda self, ids, mask: (self._run(ids, mask), 1.0))
    model = load_language_model(local(llama), ["layers.1"])
    ids, mask = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool)
    for other in (lambda: model.activations(ids[:1], mask[:1]), lambda: model.activations_alone(ids[0])):
        for _ in range(6):
            model._replay(model._replay_key(ids), ids, mask)
        model.activations(ids, mask)
        assert model._replay.is_recorded
        other()
        assert not model._replay.is_recorded
