"""A checkpoint that cannot be used is refused by name, with what is wrong about it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.engine.saes.formats import CheckpointError, checkpoint_files, read_checkpoint
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets_tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return tiny.make_sae(tmp_path / "sae")


def set_config(folder: Path, **changes: object) -> None:
    file = folder / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def set_tensor(folder: Path, name: str, change: Callable[[Tensor], Tensor] | Tensor) -> None:
    file = folder / "sae_weights.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
    value = change if isinstance(change, Tensor) else change(tensors[name])
    save_file({**tensors, name: value.contiguous()}, file)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_sae(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no SAE checkpoint at .*: the folder does not exist")


def test_a_folder_of_no_known_format_names_the_known_ones(tmp_path: Path) -> None:
    refused(tmp_path, "not an SAE checkpoint of a known format .*cfg.json and sae_weights.safetensors")


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"{name} is missing")


def test_an_unknown_architecture_is_named_with_the_known_ones(folder: Path) -> None:
    set_config(folder, architecture="crosscoder")
    refused(folder, "architecture 'crosscoder' is not supported .known: standard, jumprelu, topk, gated, batchtopk, ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalize_activations", "covariance_whitening"),
        ("reshape_activations", "heads"),
        ("activation_fn", "identity"),
        ("hook_head_index", 3),
    ],
)
def test_a_setting_that_changes_the_encoder_is_named(folder: Path, key: str, value: object) -> None:
    set_config(folder, **{key: value})
    refused(folder, f"{key} = {value!r} is not supported")


@pytest.mark.parametrize("function", ["topk", "tanh-relu"])
def test_an_activation_function_of_another_architecture_is_refused(tmp_path: Path, function: str) -> None:
    folder = tiny.make_sae(tmp_path / "gated", "gated", activation_fn_str=function)
    refused(folder, f"a gated SAE with activation function {function} is not supported")


@pytest.mark.parametrize("architecture", ["transcoder", "jumprelu_skip_transcoder"])
def test_a_transcoder_never_subtracts_the_bias_of_its_output(tmp_path: Path, architecture: str) -> None:
    folder = tiny.make_sae(tmp_path / "sae", architecture, apply_b_dec_to_input=True)
    assert not read_checkpoint(folder).apply_b_dec_to_input


def test_a_signed_topk_encoder_is_refused(folder: Path) -> None:
    set_config(folder, activation_fn_str="topk", activation_fn_kwargs={"k": 3, "signed": True})
    refused(folder, "its encoder is signed: it keeps features with negative activations")


def test_an_unknown_option_of_topk_is_named(folder: Path) -> None:
    set_config(folder, activation_fn_str="topk", activation_fn_kwargs={"k": 3, "postact_fn": "identity"})
    refused(folder, "activation_fn_kwargs postact_fn of topk is not supported")


def test_a_scale_is_refused_where_none_belongs(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"norm_scaling_factor belongs to .* has 'none': leave it out"):
        read_checkpoint(folder, norm_scaling_factor=2.0)


def test_the_scale_that_training_stored_beside_the_checkpoint_is_used(folder: Path) -> None:
    set_config(folder, normalize_activations="expected_average_only_in")
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    stored, given = read_checkpoint(folder), read_checkpoint(folder, norm_scaling_factor=2.0)
    assert all(torch.equal(stored.tensors()[name], tensor) for name, tensor in given.tensors().items())
    assert not torch.equal(given.w_enc, load_file(folder / "sae_weights.safetensors")["W_enc"])
    assert [file.name for file in checkpoint_files(folder)] == [
        "activation_scaler.json",
        "cfg.json",
        "sae_weights.safetensors",
    ]


def test_folding_norms_that_choose_among_features_is_refused(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "topk", "topk")
    with pytest.raises(CheckpointError, match="would change which features a topk SAE activates"):
        read_checkpoint(folder, fold_decoder_norm=True)


def test_features_of_tanh_relu_are_the_tanh_of_those_of_relu(folder: Path) -> None:
    x = torch.randn(9, tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    plain = load_sae(folder).encode(x)
    set_config(folder, activation_fn_str="tanh-relu")
    assert torch.equal(load_sae(folder).encode(x), plain.tanh())


def test_a_finetuning_factor_scales_the_decoder_alone(folder: Path) -> None:
    before, factor = read_checkpoint(folder), torch.linspace(0.5, 2, tiny.NUM_FEATURES)
    set_tensor(folder, "finetuning_scaling_factor", factor)
    after = read_checkpoint(folder)
    assert torch.equal(after.w_dec, before.w_dec * factor[:, None])
    assert torch.equal(after.w_enc, before.w_enc)


def test_a_finetuning_factor_of_a_wrong_shape_is_named(folder: Path) -> None:
    set_tensor(folder, "finetuning_scaling_factor", torch.tensor([2.0, 3.0]))
    refused(folder, r"finetuning scaling factor has shape \(2,\), expected \(48,\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_weights_that_are_not_finite_are_counted_and_named(folder: Path, name: str, value: float) -> None:
    set_tensor(folder, name, lambda tensor: tensor.flatten().index_fill(0, torch.tensor([2]), value).view_as(tensor))
    refused(folder, f"{name} holds 1 NaN or infinite value")


@pytest.mark.parametrize("name", ["W_dec", "b_enc", "b_dec"])
def test_a_wrong_shape_is_named_with_the_right_one(folder: Path, name: str) -> None:
    set_tensor(folder, name, lambda tensor: tensor[:-1])
    refused(folder, rf"{name} has shape \(.*\), expected \(")


def test_an_encoder_that_is_no_matrix_is_named(folder: Path) -> None:
    set_tensor(folder, "W_enc", lambda tensor: tensor.flatten())
    refused(folder, r"sae_weights.safetensors holds W_enc of shape \(768,\), expected \(rows, columns\)")


def test_a_missing_tensor_is_named_with_those_present(folder: Path) -> None:
    set_config(folder, architecture="jumprelu")
    refused(folder, "lacks threshold, which a jumprelu SAE needs; it holds W_dec, W_enc, b_dec, b_enc")


def test_a_cut_file_is_recognised(folder: Path) -> None:
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(
        folder,
        "sae_weights.safetensors is not a whole safetensors file: .* 6,672 bytes, the file has 6,572; is",
    )


@pytest.mark.parametrize("text", ["{", "\x80", "[1, 2]"])
def test_a_configuration_that_is_no_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / "cfg.json").write_bytes(text.encode("latin-1"))
    refused(folder, "cfg.json is not ")


@pytest.mark.parametrize("k", [0, -1, tiny.NUM_FEATURES + 1])
def test_k_out_of_range_is_refused(tmp_path: Path, k: int) -> None:
    refused(tiny.make_sae(tmp_path / "topk", "topk", k=k), f"k is {k}, it must be between 1 and 48, the features of")


@pytest.mark.parametrize("k", ["many", None, 2.5])
def test_k_that_is_no_whole_number_is_refused(tmp_path: Path, k: object) -> None:
    refused(tiny.make_sae(tmp_path / "topk", "topk", k=k), "k must be a whole number, got ")


def test_half_precision_weights_are_widened(folder: Path) -> None:
    set_tensor(folder, "W_enc", lambda tensor: tensor.bfloat16())
    assert {tensor.dtype for tensor in read_checkpoint(folder).tensors().values()} == {torch.float32}


def test_widths_come_from_the_encoder(folder: Path) -> None:
    weights = read_checkpoint(folder)
    assert (weights.d_in, weights.latent_dim) == (tiny.D_MODEL, tiny.NUM_FEATURES)


@pytest.mark.parametrize(("key", "recorded"), [("d_sae", 99), ("d_in", 3)])
def test_a_configuration_of_other_weights_is_refused(key: str, recorded: int, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, key: recorded}))
    with pytest.raises(CheckpointError, match=rf"cfg.json says {key} = {recorded}, but W_enc of .* has \d+"):
        read_checkpoint(folder)
