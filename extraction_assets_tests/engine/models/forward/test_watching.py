"""What a model writes into after a hook has read it is found and copied; nothing else is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets_tests.engine.models.tiny_types import tiny_model

T, D = 6, 4
ids = torch.arange(2 * T).reshape(2, T) % 5
mask = torch.ones_like(ids).bool()


def read(module: nn.Module, hooks: list[str]) -> dict[str, Tensor]:
    return LanguageModel(module, hooks).activations(ids, mask)


# The models that are known for it


def test_falcons_mlp_is_the_cloned_output_whatever_is_hooked_beside_it() -> None:
    module, cloned = tiny_model("falcon"), list[Tensor]()
    handle = module.get_submodule("h.0.mlp").register_forward_hook(lambda *passed: cloned.append(passed[2].clone()))
    with torch.inference_mode():
        module(input_ids=ids)
    handle.remove()
    alone, beside = read(module, ["h.0.mlp"]), read(module, ["h.0.mlp", "h.1"])
    assert torch.equal(alone["h.0.mlp"], cloned[0])
    assert torch.equal(beside["h.0.mlp"], cloned[0])


def test_only_what_is_written_into_is_copied() -> None:
    model = LanguageModel(tiny_model("falcon"), ["h.0", "h.0.mlp", "h.1"])
    seen: dict[str, Tensor] = {}
    for name in model.hooks:
        model.module.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: out[0] if isinstance(out, tuple) else out})
        )
    model.activations(ids, mask)
    outputs = model.activations(ids, mask)
    shared = {hook: out.data_ptr() == seen[hook].data_ptr() for hook, out in outputs.items() if hook in seen}
    assert shared["h.0"]
    assert not shared["h.0.mlp"]


# Every way of writing


class Inner(nn.Module):
    """Gives its input plus one."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class Writes(nn.Module):
    """A model that does something to what its first module gave, before its second one runs."""

    def __init__(self, write: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.inner, self.last, self.write = Inner(), Inner(), write

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.inner(input_ids[..., None].expand(-1, -1, D).float().clone())
        self.write(x)
        return self.last(x)


def _custom(x: Tensor) -> None:
    torch.ops.extraction_tests.double_(x)


@torch.library.custom_op("extraction_tests::double_", mutates_args=("x",))
def _double(x: Tensor) -> None:
    x.mul_(2)


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "in place": lambda x: x.mul_(2),
    "by item": lambda x: x.__setitem__((0, 0), 7.0),
    "through a view": lambda x: x.view(-1)[3:5].zero_(),
    "through a transposed row": lambda x: x.transpose(0, 1)[2].add_(1),
    "detached": lambda x: x.detach().add_(1),
    "out=": lambda x: torch.add(x, 1, out=x),
    "of two out=": lambda x: torch.topk(-x, D, out=(x, torch.empty(0, dtype=torch.int64))),
    "foreach": lambda x: torch._foreach_mul_([torch.ones(2), x[:1]], 3.0),
    "copy_": lambda x: x.copy_(x.flip(0)),
    "index_put_": lambda x: x.index_put_((torch.tensor([0]),), torch.tensor(9.0)),
    "scatter": lambda x: x.scatter_(2, torch.zeros(2, T, 1, dtype=torch.int64), 5.0),
    "activation": lambda x: nn.functional.relu(x.sub_(3), inplace=True),
    "dropout's scale": lambda x: nn.functional.dropout(x, 0.5, training=True, inplace=True),
    "masked": lambda x: x.masked_fill_(x > 2, 0.0),
    "custom operator": _custom,
    "beside the dispatcher": lambda x: x.numpy().fill(3.0),
    "chunk": lambda x: x.chunk(2, dim=-1)[1].mul_(2),
    "swapped storage": lambda x: x.untyped_storage().fill_(0),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_hook_before_a_write_gives_what_stood_there(name: str) -> None:
    expected = ids[..., None].expand(-1, -1, D).float() + 1
    outputs = read(Writes(WRITES[name]), ["inner", "inner.input", "last"])
    assert torch.equal(outputs["inner"], expected)
    assert torch.equal(outputs["inner.input"], expected - 1)
    assert not torch.equal(outputs["last"], expected + 1)


def test_an_input_that_its_module_writes_into_is_what_the_module_was_called_with() -> None:
    class Overwrites(Inner):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1)

    model = Writes(lambda x: None)
    model.last = Overwrites()
    outputs = read(model, ["last.input", "last", "inner"])
    assert torch.equal(outputs["last.input"] + 1, outputs["last"])
    assert torch.equal(outputs["inner"], outputs["last.input"])


@pytest.mark.parametrize("lazily", [True, False])
def test_a_buffer_that_a_module_fills_again_in_the_next_pass_is_copied(lazily: bool) -> None:
    class Reuses(Inner):
        buffer: Tensor | None = None if lazily else torch.empty(2, T, D)

        def forward(self, x: Tensor) -> Tensor:
            self.buffer = torch.empty_like(x) if self.buffer is None else self.buffer
            return self.buffer.copy_(x)

    module = Writes(lambda x: None)
    module.inner = Reuses()
    model = LanguageModel(module, ["inner"])
    first = model.activations(ids, mask)["inner"]
    before = first.clone()
    assert not torch.equal(model.activations(ids + 1, mask)["inner"], before)
    assert torch.equal(first, before)


def test_a_buffer_that_a_module_fills_again_two_passes_later_is_copied() -> None:
    class Alternates(Inner):
        buffers = [torch.empty(2, T, D), torch.empty(2, T, D)]

        def forward(self, x: Tensor) -> Tensor:
            self.buffers.reverse()
            return self.buffers[0].copy_(x)

    module = Writes(lambda x: None)
    module.inner = Alternates()
    model = LanguageModel(module, ["inner"])
    outputs = [model.activations(ids + number, mask)["inner"] for number in range(4)]
    assert all(torch.equal(out[..., 0], (ids + number).float()) for number, out in enumerate(outputs))


@pytest.mark.parametrize("write", ["mul_", "foreach", "out="])
def test_a_write_that_changes_nothing_in_the_first_batch_counts(write: str) -> None:
    factor = [1.0]
    writes: dict[str, Callable[[Tensor], Any]] = {
        "mul_": lambda x: x.mul_(factor[0]),
        "foreach": lambda x: torch._foreach_mul_([torch.ones(2), x[:1], x[1:]], factor[0]),
        "out=": lambda x: torch.mul(x, factor[0], out=x),
    }
    model = LanguageModel(Writes(writes[write]), ["inner", "last"])
    model.activations(ids, mask)
    factor[0] = 2.0
    assert torch.equal(model.activations(ids, mask)["inner"], ids[..., None].expand(-1, -1, D).float() + 1)


def test_a_model_that_writes_nothing_copies_nothing() -> None:
    module, copies = Writes(lambda x: None), list[int]()
    model = LanguageModel(module, ["inner", "last"])
    model.activations(ids, mask)
    module.inner.register_forward_hook(lambda _m, _i, out: copies.append(out.data_ptr()))
    assert model.activations(ids, mask)["inner"].data_ptr() == copies[0]


def test_hooks_read_for_a_while_are_watched_too() -> None:
    model = LanguageModel(Writes(WRITES["in place"]), ["last"])
    model.activations(ids, mask)
    with model.also_reading(["inner"]):
        assert torch.equal(model.activations(ids, mask)["inner"], ids[..., None].expand(-1, -1, D).float() + 1)


def test_a_large_batch_is_watched_in_part() -> None:
    rows = list[int]()
    model = LanguageModel(Writes(lambda x: rows.append(len(x))), ["inner"])
    many = ids[:1].expand(100, -1)
    model.activations(many, torch.ones_like(many).bool())
    assert max(rows) == 8


@pytest.mark.slow
def test_blocks_compiled_before_the_first_batch_are_watched_as_they_were() -> None:
    plain, compiled = (LanguageModel(tiny_model("falcon"), ["h.0", "h.1.mlp", "h.1"]) for _ in range(2))
    compiled.compile_blocks("aot_eager")
    assert compiled.compiled
    torch.testing.assert_close(compiled.activations(ids, mask), plain.activations(ids, mask))


def test_the_watched_pass_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def compile_(forward: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def compiled(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return forward(*args, **kwargs)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    model = LanguageModel(tiny_model("llama"), ["layers.1"])
    model.compile_blocks()
    model.activations(ids, mask)
    assert len(calls) == 2  # the two blocks of the batch itself
    model.activations_alone(ids[0])
    assert len(calls) == 2
