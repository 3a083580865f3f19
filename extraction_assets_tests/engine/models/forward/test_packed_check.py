"""transformers is asked once a shape whether rows hold several sequences, and in vain as before outside."""

import pytest
import torch
from torch import Tensor
from transformers import masking_utils

from extraction_assets.engine.models.forward import packed_check
from extraction_assets.engine.models.forward.packed_check import PackedCheck
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.checkpoints import local


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes that transformers itself looks at."""
    shapes, find = (
        list[tuple[int, ...]](),
        getattr(masking_utils.find_packed_sequence_indices, "__wrapped__", masking_utils.find_packed_sequence_indices),
    )

    def noting(position_ids: Tensor) -> Tensor | None:
        shapes.append(tuple(position_ids.shape))
        return find(position_ids)  # type: ignore[no-any-return]

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", noting)
    packed_check._install.cache_clear()
    return shapes


def test_a_model_asks_once_for_each_shape(llama: str, asked: list[tuple[int, ...]]) -> None:
    model = load_language_model(local(llama), ["layers.1"])
    mask = torch.ones(3, 7, dtype=torch.bool)
    model.activations(torch.ones(3, 7, dtype=torch.int64), mask)
    asked.clear()
    for value in (1, 2, 1):
        model.activations(torch.full((3, 7), value), mask)
    assert asked == []
    model.activations(torch.ones(2, 7, dtype=torch.int64), mask[:2])
    assert asked == [(2, 7)]


def test_packed_rows_are_found_every_time_and_outside_as_ever(asked: list[tuple[int, ...]]) -> None:
    packed, check = torch.tensor([[0, 1, 0, 1]]), PackedCheck()
    with check.known_answers():
        for _ in range(2):
            assert masking_utils.find_packed_sequence_indices(packed).tolist() == [[0, 0, 1, 1]]
    for _ in range(2):
        assert masking_utils.find_packed_sequence_indices(torch.arange(4)[None]) is None
    assert len(asked) == 4
