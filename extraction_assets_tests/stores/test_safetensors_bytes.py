"""Files written from the memory of their tensors: byte for byte those of the safetensors package."""

from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from extraction_assets.stores.safetensors_bytes import file_bytes

_TYPES = ["int64", "float64", "float32", "int32", "bfloat16", "float16", "int16", "int8", "uint8", "bool"]
_METADATA = {"field": 'quotes " and \\ and ä \x01'}


def _bytes(tensors: dict[str, Tensor | Sequence[Tensor]]) -> bytes:
    return b"".join(file_bytes(tensors, _METADATA))


def test_the_bytes_are_those_of_the_package_for_every_type() -> None:
    tensors = {
        f"{'ba'[number % 2]}{name}": torch.ones(3, 2, dtype=getattr(torch, name)) for number, name in enumerate(_TYPES)
    }
    assert _bytes({**tensors}) == save(tensors, _METADATA)


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (5,), (2, 3, 4)])
def test_the_bytes_are_those_of_the_package_for_every_shape(shape: tuple[int, ...]) -> None:
    tensors = {"x": torch.rand(shape), "names": torch.arange(3)}
    assert _bytes({**tensors}) == save(tensors, _METADATA)


def test_a_tensor_that_is_not_contiguous_is_stored_as_its_values() -> None:
    tensor = torch.arange(6).reshape(2, 3).t()
    assert _bytes({"x": tensor}) == save({"x": tensor.contiguous()}, _METADATA)


@pytest.mark.parametrize("lengths", [[3], [2, 1], [0, 2, 0, 1], [3, 0]])
def test_pieces_give_the_bytes_of_the_whole(lengths: list[int]) -> None:
    whole = torch.rand(3, 2).to(torch.bfloat16)
    assert _bytes({"x": whole.split(lengths)}) == save({"x": whole}, _METADATA)


def test_nothing_is_copied() -> None:
    tensor = torch.zeros(4, dtype=torch.int32)
    _, data = file_bytes({"x": tensor}, _METADATA)
    tensor[0] = 1
    assert data[0] == 1


@pytest.mark.parametrize("pieces", [[torch.zeros(1, dtype=torch.complex64)], [torch.zeros(1), torch.zeros(1).double()]])
def test_a_type_that_no_file_has_is_refused(pieces: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="tensor 'x' cannot be stored"):
        file_bytes({"x": pieces}, _METADATA)
