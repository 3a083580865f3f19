"""Gemma Scope, sparsify and dictionary_learning: encode and decode against their published formulas, in float64."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from extraction_assets.engine.saes.formats import (
    CheckpointError,
    checkpoint_files,
    read_checkpoint_record,
)
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.engine.shapes import SparseFeatures

D, F, TOKENS, K = 16, 48, 24, 7

Arrays = dict[str, np.ndarray]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.4


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def largest(x: np.ndarray, k: int) -> np.ndarray:
    """x with all but the k largest of each row set to zero."""
    kept = np.argsort(-x, axis=1, kind="stable")[:, :k]
    out = np.zeros_like(x)
    np.put_along_axis(out, kept, np.take_along_axis(x, kept, axis=1), axis=1)
    return out


class Formula(NamedTuple):
    tensors: dict[str, Tensor]
    encode: Callable[[np.ndarray, Arrays], np.ndarray]
    decode: Callable[[np.ndarray, np.ndarray, Arrays], np.ndarray]
    """(features, input, parameters)"""


def assert_follows(folder: Path, formula: Formula) -> None:
    own, x = load_sae(folder), random(TOKENS, D, seed=0) * 3
    parameters = {name: tensor.double().numpy() for name, tensor in formula.tensors.items()}
    features = formula.encode(x.double().numpy(), parameters)
    assert 0 < np.count_nonzero(features) < 0.7 * features.size
    np.testing.assert_allclose(own.encode(x).numpy(), features, rtol=1e-5, atol=2e-6)
    firings = own.encode_sparse(x)
    decoded = own.decode(SparseFeatures(*firings[:3], 4, 6, F), x.view(4, 6, D)).view(TOKENS, -1)
    expected = formula.decode(features, x.double().numpy(), parameters)
    np.testing.assert_allclose(decoded.numpy(), expected, rtol=1e-5, atol=1e-5)


# Gemma Scope: arXiv 2408.05147, section 2: JumpReLU, z * H(z - threshold) of z = x W_enc + b_enc

GEMMA_SCOPE = Formula(
    {
        "W_enc": random(D, F, seed=1),
        "b_enc": random(F, seed=2),
        "W_dec": random(F, D, seed=3),
        "b_dec": random(D, seed=4),
        "threshold": random(F, seed=5).abs(),
    },
    lambda x, p: (z := x @ p["W_enc"] + p["b_enc"]) * (z > p["threshold"]),
    lambda f, x, p: f @ p["W_dec"] + p["b_dec"],
)


def make_gemma_scope(folder: Path, **changes: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **({name: t.numpy() for name, t in GEMMA_SCOPE.tensors.items()} | changes))
    return folder


def test_gemma_scope_follows_its_formula(tmp_path: Path) -> None:
    folder = make_gemma_scope(tmp_path / "sae")
    assert_follows(folder, GEMMA_SCOPE)
    assert checkpoint_files(folder) == [folder / "params.npz"]


RES = "gemma-scope-2b-pt-res"
PLACES = {
    f"models--google--{RES}/snapshots/abc/layer_12/width_16k/average_l0_82": ("blocks.12.hook_resid_post", "2b"),
    f"{RES}/layer_0/width_16k/average_l0_105": ("blocks.0.hook_resid_post", "2b"),
    "gemma-scope-9b-it-res/layer_31/width_16k/average_l0_76": ("blocks.31.hook_resid_post", "9b-it"),
    "gemma-scope-2b-pt-mlp/layer_5/width_16k/average_l0_56": ("blocks.5.hook_mlp_out", "2b"),
    "gemma-scope-2b-pt-att/layer_5/width_16k/average_l0_56": ("blocks.5.attn.hook_z", "2b"),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_place_of_gemma_scope_tells_hook_and_model(place: str, tmp_path: Path) -> None:
    record = read_checkpoint_record(make_gemma_scope(tmp_path / place))
    hook, size = PLACES[place]
    assert (record.hook, record.model_name) == (hook, f"google/gemma-2-{size}")
    assert (record.prepend_bos, record.context_size) == (True, 1024)


@pytest.mark.parametrize(
    "place",
    ["sae", "layer_12/width_16k", f"{RES}/embedding/mine", f"{RES}/{RES}"],
)
def test_another_place_tells_no_hook(place: str, tmp_path: Path) -> None:
    assert read_checkpoint_record(make_gemma_scope(tmp_path / place)).hook is None


def test_an_archive_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = make_gemma_scope(tmp_path / "sae", threshold=np.array([print] * F, dtype=object))
    with pytest.raises(CheckpointError, match=r"params.npz holds threshold as 'object'"):
        load_sae(folder)


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    file = make_gemma_scope(tmp_path / "sae") / "params.npz"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"params.npz cannot be read .*is it cut short"):
        load_sae(tmp_path / "sae")


def test_an_archive_without_thresholds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    np.savez(tmp_path / "sae" / "params.npz", W_enc=np.ones((D, F), np.float32))
    with pytest.raises(CheckpointError, match=r"params.npz lacks b_enc, W_dec, b_dec, threshold, which a Gemma Scope"):
        load_sae(tmp_path / "sae")


# sparsify: SparseCoder.encode and forward of eai-sparsify 1.3 (sparse_coder.py, fused_encoder.py)

SPARSIFY = {
    "encoder.weight": random(F, D, seed=1),
    "encoder.bias": random(F, seed=2),
    "W_dec": random(F, D, seed=3),
    "b_dec": random(D, seed=4),
    "W_skip": random(D, D, seed=5),
}


def make_sparsify(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    config = {"activation": "topk", "expansion_factor": F // D, "normalize_decoder": True, "num_latents": 0, "k": K}
    config |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D, **changes}
    (folder / "cfg.json").write_text(json.dumps(config))
    tensors = {name: t for name, t in SPARSIFY.items() if name != "W_skip" or config["skip_connection"]}
    save_file(tensors, folder / "sae.safetensors")
    return folder


def sparsify_formula(*, transcode: bool = False, skip: bool = False) -> Formula:
    def encode(x: np.ndarray, p: Arrays) -> np.ndarray:
        x = x if transcode else x - p["b_dec"]
        return largest(relu(x @ p["encoder.weight"].T + p["encoder.bias"]), K)

    def decode(f: np.ndarray, x: np.ndarray, p: Arrays) -> np.ndarray:
        return f @ p["W_dec"] + p["b_dec"] + (x @ p["W_skip"].T if skip else 0)

    return Formula(SPARSIFY, encode, decode)


def test_sparsify_follows_its_formula(tmp_path: Path) -> None:
    folder = make_sparsify(tmp_path / "layers.5")
    assert_follows(folder, sparsify_formula())
    assert [file.name for file in checkpoint_files(folder)] == ["cfg.json", "sae.safetensors"]


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_of_sparsify_follows_its_formula(skip: bool, tmp_path: Path) -> None:
    folder = make_sparsify(tmp_path / "layers.5.mlp", transcode=True, skip_connection=skip)
    assert_follows(folder, sparsify_formula(transcode=True, skip=skip))


def test_the_folder_of_sparsify_tells_its_module(tmp_path: Path) -> None:
    record = read_checkpoint_record(make_sparsify(tmp_path / "layers.5"))
    assert (record.hook, record.hook_out, record.is_transcoder) == ("layers.5", None, False)
    record = read_checkpoint_record(make_sparsify(tmp_path / "h.3.mlp", transcode=True))
    assert (record.hook, record.hook_out, record.is_transcoder) == ("h.3.mlp.input", "h.3.mlp", True)
    assert read_checkpoint_record(make_sparsify(tmp_path / "mine")).hook is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signed": True}, "its encoder is signed"),
        ({"activation": "groupmax"}, r"activation = 'groupmax' is not supported \(known: topk\)"),
        ({"num_latents": 40}, r"d_in = 16 and 40 latents, but encoder.weight of .* is for 16 and 48"),
        ({"k": None}, "k must be a whole number, got None"),
    ],
)
def test_what_sparsify_says_is_refused_by_name(changes: Any, message: str, tmp_path: Path) -> None:
    folder = make_sparsify(tmp_path / "sae", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_sae(folder)


# dictionary_learning 0.1: encode and decode of the classes in dictionary.py and trainers/

ENCODER = {"encoder.weight": random(F, D, seed=1), "decoder.weight": random(D, F, seed=3)}
BIASED = {**ENCODER, "encoder.bias": random(F, seed=2)}
PLAIN = {
    "W_enc": random(D, F, seed=1),
    "b_enc": random(F, seed=2),
    "W_dec": random(F, D, seed=3),
    "b_dec": random(D, seed=4),
}
THRESHOLD = {"threshold": torch.tensor(0.7), "k": torch.tensor(K, dtype=torch.int32)}


def pre(x: np.ndarray, p: Arrays) -> np.ndarray:
    return x @ p["encoder.weight"].T + p["encoder.bias"]


def above(z: np.ndarray, p: Arrays) -> np.ndarray:
    return relu(z) * (relu(z) > p["threshold"])


def norms(p: Arrays) -> np.ndarray:
    return np.linalg.norm(p["decoder.weight"], axis=0)


def gated(x: np.ndarray, p: Arrays) -> np.ndarray:
    z = (x - p["decoder_bias"]) @ p["encoder.weight"].T
    return (z + p["gate_bias"] > 0) * relu(np.exp(p["r_mag"]) * z + p["mag_bias"])


DICTIONARY_LEARNING = {
    "AutoEncoder": Formula(  # its from_pretrained normalises the decoder, and scales the encoder by its norms
        {**BIASED, "bias": random(D, seed=4)},
        lambda x, p: relu(pre(x - p["bias"], p)) * norms(p),
        lambda f, x, p: (f / norms(p)) @ p["decoder.weight"].T + p["bias"],
    ),
    "AutoEncoderNew": Formula(
        {**BIASED, "decoder.bias": random(D, seed=4)},
        lambda x, p: relu(pre(x, p)),
        lambda f, x, p: f @ p["decoder.weight"].T + p["decoder.bias"],
    ),
    "GatedAutoEncoder": Formula(
        {
            **ENCODER,
            "decoder_bias": random(D, seed=4),
            "r_mag": random(F, seed=5),
            "gate_bias": random(F, seed=6),
            "mag_bias": random(F, seed=7),
        },
        gated,
        lambda f, x, p: f @ p["decoder.weight"].T + p["decoder_bias"],
    ),
    "AutoEncoderTopK": Formula(  # its threshold has no part in encode unless asked for
        {**BIASED, **THRESHOLD, "b_dec": random(D, seed=4)},
        lambda x, p: largest(relu(pre(x - p["b_dec"], p)), K),
        lambda f, x, p: f @ p["decoder.weight"].T + p["b_dec"],
    ),
    "BatchTopKSAE": Formula(
        {**BIASED, **THRESHOLD, "b_dec": random(D, seed=4)},
        lambda x, p: above(pre(x - p["b_dec"], p), p),
        lambda f, x, p: f @ p["decoder.weight"].T + p["b_dec"],
    ),
    "MatryoshkaBatchTopKSAE": Formula(
        {**PLAIN, **THRESHOLD, "group_sizes": torch.tensor([12, 36])},
        lambda x, p: above((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"], p),
        lambda f, x, p: f @ p["W_dec"] + p["b_dec"],
    ),
    "JumpReluAutoEncoder": Formula(
        {**PLAIN, "threshold": random(F, seed=5).abs()},
        lambda x, p: above(x @ p["W_enc"] + p["b_enc"], p),
        lambda f, x, p: f @ p["W_dec"] + p["b_dec"],
    ),
}


def make_dictionary(folder: Path, name: str, **trainer: Any) -> Path:
    folder.mkdir(parents=True)
    own = {"dict_class": name, "activation_dim": D, "dict_size": F, "layer": 8, "lm_name": "EleutherAI/pythia-70m"}
    own |= {"submodule_name": "resid_post_layer_8", "k": K, **trainer}
    (folder / "config.json").write_text(json.dumps({"trainer": own, "buffer": {"d_submodule": D, "ctx_len": 128}}))
    torch.save(DICTIONARY_LEARNING.get(name, GEMMA_SCOPE).tensors, folder / "ae.pt")
    return folder


@pytest.mark.parametrize("name", DICTIONARY_LEARNING)
def test_dictionary_learning_follows_its_formula(name: str, tmp_path: Path) -> None:
    folder = make_dictionary(tmp_path / "trainer_0", name)
    assert_follows(folder, DICTIONARY_LEARNING[name])
    assert [file.name for file in checkpoint_files(folder)] == ["ae.pt", "config.json"]


def test_dictionary_learning_records_model_hook_and_context(tmp_path: Path) -> None:
    record = read_checkpoint_record(make_dictionary(tmp_path / "one", "BatchTopKSAE"))
    assert (record.hook, record.model_name) == ("blocks.8.hook_resid_post", "EleutherAI/pythia-70m")
    assert (record.context_size, record.prepend_bos) == (128, None)
    other = make_dictionary(tmp_path / "two", "BatchTopKSAE", submodule_name="mlp_layer_8")
    assert read_checkpoint_record(other).hook is None


def test_an_unknown_class_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"dict_class 'CrossCoder' .* is not supported \(known: AutoEncoder, "):
        load_sae(make_dictionary(tmp_path / "sae", "CrossCoder"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = make_dictionary(tmp_path / "sae", "BatchTopKSAE")
    torch.save({"encoder.weight": Path("/tmp")}, folder / "ae.pt")
    with pytest.raises(CheckpointError, match=r"ae.pt holds more than tensors, and is not loaded"):
        load_sae(folder)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    folder = make_dictionary(tmp_path / "sae", "BatchTopKSAE")
    torch.save([1, 2], folder / "ae.pt")
    with pytest.raises(CheckpointError, match=r"ae.pt is not a state dict of tensors"):
        load_sae(folder)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    file = make_dictionary(tmp_path / "sae", "BatchTopKSAE") / "ae.pt"
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match=r"ae.pt is not a file of torch.save in its zip format, or is cut short"):
        load_sae(tmp_path / "sae")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    (make_dictionary(tmp_path / "sae", "BatchTopKSAE") / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        load_sae(tmp_path / "sae")
