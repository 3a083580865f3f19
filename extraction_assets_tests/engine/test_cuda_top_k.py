"""TopK by the kernels, against a stable sort of everything: the same bits in every odd case."""

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.saes import kernel_encoder, products
from extraction_assets.engine.saes.activation import ActivationFunction, Firings, firings_of
from extraction_assets.engine.saes.kernel_encoder import KernelEncoder
from extraction_assets.engine.saes.top_k import top_k_firings_of
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.cuda import counted_synchronisations
from extraction_assets_tests.engine.sorted_top_k import sorted_top_k

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)
ROWS = 24
KINDS = ["random", "ties", "equal", "few", "none", "ascending", "descending"]


def _product(kind: str, f: int) -> Tensor:
    """The pre-activations of 24 tokens."""
    generator = torch.Generator().manual_seed(f)
    random = torch.randn(ROWS, f, generator=generator)
    return {
        "random": random,
        "ties": (random * 2).round() / 2,
        "equal": torch.ones(ROWS, f),
        "few": random - 3,
        "none": -random.abs(),
        "ascending": random.sort(dim=1).values,
        "descending": random.sort(dim=1, descending=True).values,
    }[kind].to(CUDA)


def _by_kernels(
    monkeypatch: pytest.MonkeyPatch, product: Tensor, k: int, scale: Tensor | None = None, wanted: Tensor | None = None
) -> Firings:
    """The kernels on this product in tiles of 8 tokens, in parts of 4,096 features where k allows."""
    pytest.importorskip("triton")
    f = product.shape[1]

    def given(x: Tensor, _encoder: Tensor, tile: int, columns: int, tiles: int) -> list[products.Product]:
        rows = tile * tiles
        return [
            products.Product(row, feature, product[row : row + rows, feature : feature + columns])
            for row in range(0, len(x), rows)
            for feature in range(0, f, columns)
        ]

    monkeypatch.setattr(kernel_encoder, "products", given)
    monkeypatch.setattr(products, "_PART_BYTES", 8 * 4096 * 4)
    activation = ActivationFunction(torch.zeros(f, device=CUDA), scale)
    encoder = KernelEncoder(torch.empty(1, f, device=CUDA), activation)
    return encoder.top_k(torch.empty(ROWS, 1, device=CUDA), 8, _everybody() if wanted is None else wanted, k)


def _everybody() -> Tensor:
    return torch.ones(ROWS, dtype=torch.bool, device=CUDA)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("f", [1, 33, 2049, 20_000, 50_000])
@pytest.mark.parametrize("k", [1, 64, 1000])
def test_the_kernels_give_what_a_stable_sort_gives(monkeypatch: pytest.MonkeyPatch, kind: str, f: int, k: int) -> None:
    product = _product(kind, f)
    assert_same(_by_kernels(monkeypatch, product, k), sorted_top_k(product, _everybody(), k))


@pytest.mark.parametrize("kind", ["random", "ties", "equal"])
@pytest.mark.parametrize("f", [5000, 100_000])
def test_thousands_of_features_a_token_are_selected(monkeypatch: pytest.MonkeyPatch, kind: str, f: int) -> None:
    product = _product(kind, f)
    assert_same(_by_kernels(monkeypatch, product, 4096), sorted_top_k(product, _everybody(), 4096))


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "few"])
@pytest.mark.parametrize("k", [64, 4096])
def test_of_a_million_features_as_many_are_selected(monkeypatch: pytest.MonkeyPatch, kind: str, k: int) -> None:
    product = _product(kind, 2**20)
    assert_same(_by_kernels(monkeypatch, product, k), sorted_top_k(product, _everybody(), k))


@pytest.mark.parametrize("f", [33, 5000, 50_000])
def test_what_is_not_finite_takes_its_place_as_in_a_sort(monkeypatch: pytest.MonkeyPatch, f: int) -> None:
    product, wanted = _product("random", f), _everybody()
    for row, (column, value) in enumerate([(0, "nan"), (f - 1, "inf"), (f // 2, "-inf"), (0, "nan"), (1, "3e38")]):
        product[row, column] = float(value)  # row 3 is not wanted
    product[7], product[8, :20] = float("nan"), float("nan")
    wanted[3] = False
    found = _by_kernels(monkeypatch, product, 5, wanted=wanted)
    assert (~found.finite).nonzero().squeeze(1).tolist() == [0, 1, 2, 7, 8]
    assert_same(found, sorted_top_k(product, wanted, 5))


def test_values_are_rounded_as_those_of_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    product, scale = _product("random", 5000), torch.rand(5000, generator=torch.Generator().manual_seed(1)).to(CUDA)
    expected = top_k_firings_of(
        product.clone(), _everybody(), ActivationFunction(torch.zeros(5000, device=CUDA), scale), 64
    )
    assert_same(_by_kernels(monkeypatch, product, 64, scale), expected)


@pytest.mark.parametrize("tiles", [1, 2, 3])
@pytest.mark.parametrize("kind", ["random", "ties"])
def test_rows_of_several_tiles_are_selected_from_at_once(
    monkeypatch: pytest.MonkeyPatch, kind: str, tiles: int
) -> None:
    monkeypatch.setattr(KernelEncoder, "_groups_together", lambda _self, _rows: tiles)
    product = _product(kind, 20_000)
    assert_same(_by_kernels(monkeypatch, product, 64), sorted_top_k(product, _everybody(), 64))


@pytest.mark.parametrize("slots", [128, 1024])
@pytest.mark.parametrize("kind", ["random", "ties"])
def test_candidates_that_do_not_fit_the_registers_are_read_again(
    monkeypatch: pytest.MonkeyPatch, kind: str, slots: int
) -> None:
    kernels = pytest.importorskip("extraction_assets.engine.saes.top_k_kernels", reason="needs Triton")
    monkeypatch.setattr(kernels, "_MOST_SLOTS", slots)
    product = _product(kind, 50_000)
    assert_same(_by_kernels(monkeypatch, product, 300), sorted_top_k(product, _everybody(), 300))


def test_where_all_strong_features_are_neighbours_it_is_encoded_again_with_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    product = torch.zeros(ROWS, 20_000, device=CUDA)
    product[:, 8192:10_240] = _product("random", 2048).abs() + 1
    assert_same(_by_kernels(monkeypatch, product, 64), sorted_top_k(product, _everybody(), 64))


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_products_of_several_tiles_are_read_at_once(monkeypatch: pytest.MonkeyPatch, tiles: int) -> None:
    pytest.importorskip("triton")
    x, weights = torch.randn(5 * 16, 24, device=CUDA), torch.randn(24, 9000, device=CUDA)
    wanted = torch.rand(len(x), device=CUDA) < 0.8
    activation = ActivationFunction(torch.zeros(9000, device=CUDA))
    whole = torch.cat([x[row : row + 16] @ weights for row in range(0, len(x), 16)])
    monkeypatch.setattr(products, "_TOGETHER_BYTES", tiles * 16 * 9000 * 4)
    encoder = KernelEncoder(weights, activation)
    assert_same(encoder.top_k(x, 16, wanted, 32), sorted_top_k(whole, wanted, 32))
    assert_same(encoder.positive(x, 16, wanted), firings_of(whole.clone(), wanted, activation))


def test_selecting_waits_once() -> None:
    pytest.importorskip("triton")
    x, weights = torch.randn(64, 16, device=CUDA), torch.randn(16, 20_000, device=CUDA)
    encoder = KernelEncoder(weights, ActivationFunction(torch.zeros(20_000, device=CUDA)))
    wanted = torch.ones(64, dtype=torch.bool, device=CUDA)
    encoder.top_k(x, 16, wanted, 32)
    with counted_synchronisations() as found:
        encoder.top_k(x, 16, wanted, 32)
    assert len(found) == 1


@pytest.mark.parametrize(("width", "features"), [(768, 16_384), (2304, 16_384), (768, 131_072)])
def test_a_product_in_parts_has_the_bits_of_a_whole_one(width: int, features: int) -> None:
    generator = torch.Generator(CUDA).manual_seed(0)
    tile = (1 << 27) // (4 * features)
    x = torch.randn(tile, width, generator=generator, device=CUDA)
    encoder = torch.randn(features, width, generator=generator, device=CUDA).t()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        whole = x @ encoder
        for _, feature, part in products.products(x, encoder, tile, (1 << 26) // (4 * tile)):
            assert part.shape[1] < features
            assert torch.equal(part, whole[:, feature : feature + part.shape[1]])
    finally:
        torch.set_float32_matmul_precision(before)
