"""The kernels of encode on a GPU and their twin: the same bits, and an SAE that encodes with either."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.saes import kernel_encoder, products
from extraction_assets.engine.saes.activation import ActivationFunction, Firings, Magnitude, firings_of, has_triton
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.conftest import ARCHITECTURES
from extraction_assets_tests.tiny import D_MODEL, make_sae

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)


KINDS = ["standard", "rescaled", "jumprelu", "gated"]


def _activation(kind: str, f: int) -> ActivationFunction:
    """Parameters in quarters, so that values lie at zero and at their limit, on the GPU."""
    generator = torch.Generator().manual_seed(f)

    def quarters(low: int) -> Tensor:
        return (torch.randint(low, 4, (f,), generator=generator) / 4).to(CUDA)

    scale = (torch.rand(f, generator=generator) + 0.5).to(CUDA)
    return {
        "standard": ActivationFunction(quarters(-3)),
        "rescaled": ActivationFunction(quarters(-3), scale),
        "jumprelu": ActivationFunction(quarters(-3), limit=quarters(0)),
        "gated": ActivationFunction(quarters(-3), magnitude=Magnitude(scale, quarters(-3))),
    }[kind]


def _product(n: int, f: int, shift: float) -> Tensor:
    """Quarters, zeros of both signs and subnormals; every third column with more bits, so that roundings show."""
    generator = torch.Generator().manual_seed(n * f)
    product = torch.randint(-8, 9, (n, f), generator=generator) / 4 + shift
    product[:, ::3] += torch.rand(n, len(range(0, f, 3)), generator=generator)
    product[:, 1::7] = -0.0
    product[:, 2::7] = 1e-40
    return product.to(CUDA)


def _by_kernels(
    product: Tensor, wanted: Tensor, activation: ActivationFunction, tile: int, capacity: int = 2048
) -> Firings:
    """As ``SAE`` calls the kernels, with room for all 2,048 features of a place unless told."""
    kernels = pytest.importorskip("extraction_assets.engine.saes.kernels", reason="needs Triton")
    padded = kernels.PaddedRows(*product.shape, capacity, CUDA)
    for start in range(0, len(product), tile):
        padded.add(start, product[start : start + tile].contiguous(), wanted[start : start + tile], activation)
    total, most = padded.sizes()
    assert most <= capacity
    firings: Firings = padded.flatten(total)
    return firings


def _wanted(n: int) -> Tensor:
    return (torch.arange(n) % 5 != 3).to(CUDA)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("f", [1, 33, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("shift", [-2.0, -1.0, 1.0])  # few firings to nearly all
@pytest.mark.parametrize("tile", [1, 8, 24])
def test_the_kernels_equal_their_twin_bit_for_bit(kind: str, f: int, shift: float, tile: int) -> None:
    product, wanted, activation = _product(24, f, shift), _wanted(24), _activation(kind, f)
    expected = firings_of(product.clone(), wanted, activation)
    assert_same(_by_kernels(product, wanted, activation, tile), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("f", [33, 2049, 5000])
def test_the_kernels_mark_the_same_tokens_as_not_finite(kind: str, f: int) -> None:
    product, wanted, activation = _product(24, f, -1.0), _wanted(24), _activation(kind, f)
    for row, (column, value) in enumerate(
        [(0, float("nan")), (f - 1, float("inf")), (f // 2, float("-inf")), (0, float("nan")), (f - 1, 3e38)]
    ):  # row 3 is not wanted
        product[row, column] = value
    product[7] = float("nan")
    expected = firings_of(product.clone(), wanted, activation)
    found = _by_kernels(product, wanted, activation, 8)
    assert (~found.finite).nonzero().squeeze(1).tolist()[:3] == [0, 1, 2]
    assert found.finite[3]
    assert_same(found, expected)


def test_kernels_without_any_firing_or_wanted_token_give_nothing() -> None:
    activation, nobody = _activation("standard", 33), torch.zeros(24, dtype=torch.bool, device=CUDA)
    for product, wanted in [(_product(24, 33, -9.0) * 0 - 9, _wanted(24)), (_product(24, 33, 9.0), nobody)]:
        assert_same(_by_kernels(product, wanted, activation, 8), firings_of(product.clone(), wanted, activation))


def _fullest(firings: Firings) -> int:
    """The most firings of a token among 2,048 features from a multiple of 2,048 on."""
    places = torch.stack([firings.tokens, firings.features // 2048])
    return int(torch.unique(places, dim=1, return_counts=True)[1].max())


def test_what_just_fits_is_kept_whole() -> None:
    product, wanted, activation = (
        torch.zeros(24, 5000, device=CUDA),
        _wanted(24),
        ActivationFunction(torch.zeros(5000).to(CUDA)),
    )
    product[:, 2048 + 7 : 2048 + 7 + 64] = 1.0
    expected = firings_of(product.clone(), wanted, activation)
    assert _fullest(expected) == 64
    assert_same(_by_kernels(product, wanted, activation, 8, capacity=64), expected)


def test_what_does_not_fit_is_counted_in_full_and_disturbs_no_other_place() -> None:
    kernels = pytest.importorskip("extraction_assets.engine.saes.kernels", reason="needs Triton")
    product, wanted, activation = _product(24, 5000, 1.0), _wanted(24), _activation("standard", 5000)
    expected = firings_of(product.clone(), wanted, activation)
    assert _fullest(expected) > 1024
    padded = kernels.PaddedRows(24, 5000, 256, CUDA)
    padded.add(0, product, wanted, activation)
    assert padded.sizes() == (len(expected.tokens), _fullest(expected))
    assert_same(_by_kernels(product, wanted, activation, 8), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("d_sae", [33, 2049])  # hundreds of 2,049 fire on a token, or may be among its top k
def test_an_sae_encodes_the_same_with_and_without_triton(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, d_sae: int
) -> None:
    kernels = pytest.importorskip("extraction_assets.engine.saes.kernels", reason="needs Triton")
    assert has_triton()
    real, used = kernels.PaddedRows.add, list[int]()

    def add(self: object, first: int, *arguments: object) -> None:
        used.append(first)
        real(self, first, *arguments)

    monkeypatch.setattr(kernels.PaddedRows, "add", add)
    monkeypatch.setattr(products, "_TOGETHER_BYTES", 2 * 16 * d_sae * 4)
    folder, wanted = make_sae(tmp_path / "sae", architecture, d_sae=d_sae), _wanted(48)
    x = torch.randn(48, D_MODEL, generator=torch.Generator().manual_seed(2)).to(CUDA)
    x[2, 3] = float("nan")
    x[3] = float("inf")  # not wanted
    found = load_sae(folder, CUDA).encode_sparse(x, 16, wanted)
    full = d_sae == 2049 if architecture == "topk" else _fullest(found) > kernel_encoder._CAPACITY
    tries = 2 if full else 1
    assert used == [0, 32] * tries
    assert tries == 2 or (architecture, d_sae) != ("standard", 2049)
    monkeypatch.setattr("extraction_assets.engine.saes.sae.has_triton", lambda: False)
    assert_same(load_sae(folder, CUDA).encode_sparse(x, 16, wanted), found)
    assert (~found.finite).nonzero().squeeze(1).tolist() == [2]
