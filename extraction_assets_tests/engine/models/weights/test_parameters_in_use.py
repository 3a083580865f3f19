"""What a forward pass uses is seen from the pass."""

import torch
from torch import Tensor, nn

from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.models.weights.parameters_in_use import parameters_in_use


class Model(nn.Module):
    """Blocks that do not run in the order of their names, a weight read past its module, and an expert that rests."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.own = nn.Parameter(torch.ones(2))
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.head = nn.Linear(2, 4)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x: Tensor = self.embed(input_ids) * self.own
        x = nn.functional.linear(self.blocks[2](x), self.blocks[0].experts[1].weight)
        return self.head(self.blocks[0](x))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2, bias=False)
        self.experts = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("computed", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.experts[0](self.inner(x))
        return y * self.scale * self.computed


def used(*hooks: str) -> set[str]:
    return set(LanguageModel(Model(), hooks).weights_in_use().tensors)


EMBEDDING = {"embed.weight", "head.weight", "own"}
THIRD = {f"blocks.2.{name}" for name in ("inner.weight", "experts.0.weight", "experts.1.weight", "scale")}


def test_a_block_that_ran_counts_with_all_beneath_it() -> None:
    assert used("blocks.2") == EMBEDDING | THIRD


def test_of_a_block_that_the_hook_is_inside_only_what_was_read_counts() -> None:
    assert used("blocks.2.inner") == EMBEDDING | {"blocks.2.inner.weight"}
    assert used("blocks.2.inner.input") == EMBEDDING


def test_a_weight_that_another_module_reads_counts() -> None:
    assert used("blocks.0.input") == EMBEDDING | THIRD | {"blocks.0.experts.1.weight"}


def test_all_hooks_must_be_reached() -> None:
    assert "blocks.2.scale" in used("embed", "blocks.2")


def test_where_the_pass_fails_everything_counts_and_it_is_said_why() -> None:
    model = Model()

    def fail() -> None:
        raise ValueError("no such language\nat all")

    found = parameters_in_use(model, fail)
    assert found.tensors == set(model.state_dict())
    assert found.failure == "no such language at all"


def test_nothing_is_left_on_the_model() -> None:
    model = Model()
    parameters_in_use(model, lambda: model(torch.zeros(1, 2, dtype=torch.int64)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
