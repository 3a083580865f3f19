"""Small random checkpoints as they are published, and how SAELens's own loaders read them: the formats' oracle.

One writer a layout: names, dtypes, files and folders as in the published repositories, written under the folder that
stands for a copy of the whole repository.
"""

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from extraction_assets.engine.saes.formats import SAEWeights
from extraction_assets.engine.saes.located_checkpoint import read_sae
from extraction_assets.engine.saes.published import PublishedSae
from extraction_assets.engine.saes.sae import SAE, matmul_precision
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets.settings import ResolvedSae

D_IN, D_SAE, TOKENS, K = 16, 48, 24, 7
"""Of every small checkpoint: width, features, tokens of an input, active features of a TopK SAE."""


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.4


def thresholds(*shape: int, seed: int) -> Tensor:
    """Positive numbers, not all alike."""
    return random(*shape, seed=seed).abs() + 0.05


@functools.cache
def sae_lens() -> Any:
    """SAELens's module of loaders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        from sae_lens.loading import pretrained_sae_loaders
    return pretrained_sae_loaders


def from_hub_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets SAELens's loaders find ``folder``, a copy of a repository, wherever they would ask the hub."""
    from huggingface_hub.utils import EntryNotFoundError

    def download(repo_id: str, filename: str, *, subfolder: str | None = None, **_options: Any) -> str:
        file = folder / (subfolder or "") / filename
        if not file.is_file():
            raise EntryNotFoundError(f"{filename} is not in {repo_id}")
        return str(file)

    def shapes(_repo_id: str, filename: str) -> dict[str, list[int]]:
        content = (folder / filename).read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}

    monkeypatch.setattr(sae_lens(), "hf_hub_download", download)
    monkeypatch.setattr(sae_lens(), "get_safetensors_tensor_shapes", shapes)


def read_by_sae_lens(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    sae: PublishedSae,
    *,
    repair: Callable[[dict[str, Tensor]], object] = len,
    **overrides: Any,
) -> Any:
    """The SAE of ``folder``, a copy of its repository, as SAELens's loader and class read it, in float32.

    As ``SAE.from_pretrained`` does; ``overrides`` are entries of its configuration, such as ``d_in`` and ``d_sae``
    where the loader knows them for published models alone. ``repair`` changes the loader's state dict where its class
    could not load that.
    """
    from_hub_folder(monkeypatch, folder)
    inside = sae.path
    if sae.loader == "mntss_clt_layer_transcoder":  # SAELens's path is the number of the layer
        inside = inside.removeprefix("W_enc_").removesuffix(".safetensors")
    options = {**sae.overrides, "device": "cpu", "dtype": "float32", **overrides}
    loader = sae_lens().NAMED_PRETRAINED_SAE_LOADERS[sae.loader]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that decoders were added up, or how best to load the model
        config, state, *_ = loader(sae.repository, inside, device="cpu", force_download=False, cfg_overrides=options)
        repair(state)
        theirs = _made(sae_lens().handle_config_defaulting(config), state)
    if config.get("normalize_activations") == "expected_average_only_in" and sae.norm_scaling_factor is not None:
        theirs.fold_activation_norm_scaling_factor(sae.norm_scaling_factor)
    return theirs.float().eval()


def _made(config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """As ``SAE.from_pretrained_with_cfg_and_sparsity`` goes on after the loader."""
    from sae_lens import SAE as TheirSae

    made = TheirSae.get_sae_config_class_for_architecture(config["architecture"]).from_dict(config)
    theirs = TheirSae.get_sae_class_for_architecture(made.architecture())(made)
    theirs.process_state_dict_for_loading(state)
    theirs.load_state_dict(state, assign=True)
    return theirs


def read_by_name(folder: Path, sae: PublishedSae, **settings: Any) -> SAEWeights:
    """The SAE of ``folder``, a copy of its repository, as a user gets it by release and id."""
    named = {"path": str(folder), "release": sae.release, "sae_id": sae.sae_id, "hook": "unused"}
    return read_sae(ResolvedSae.model_validate({**named, **settings}))


def assert_same_sae(ours: SAEWeights, theirs: Any, *, decodes: bool = True, seed: int = 0) -> None:
    """Both encode, and where ``decodes`` reconstruct, alike within 1e-5 at matmul precision ``highest``."""
    x = random(TOKENS, ours.d_in, seed=seed) * 3
    heads = (TOKENS, 4, ours.d_in // 4) if getattr(theirs.cfg, "reshape_activations", "none") == "hook_z" else x.shape
    with torch.no_grad(), matmul_precision("highest"):
        features, reconstruction = theirs.encode(x.view(heads)), theirs(x.view(heads)).reshape(TOKENS, -1)
        sae = SAE(ours)
        assert 0 < int((features > 0).sum()) < 0.7 * features.numel()
        torch.testing.assert_close(sae.encode(x), features.reshape(TOKENS, -1).float(), rtol=1e-5, atol=1e-5)
        if decodes:
            firings = SparseFeatures(*sae.encode_sparse(x)[:3], 4, TOKENS // 4, ours.latent_dim)
            decoded = sae.decode(firings, x.view(4, TOKENS // 4, ours.d_in)).view(TOKENS, -1)
            torch.testing.assert_close(decoded, reconstruction.float(), rtol=1e-5, atol=1e-5)


def jumprelu_parameters(d_in: int = D_IN, d_out: int = D_IN) -> dict[str, Tensor]:
    """Parameters of a JumpReLU SAE by SAELens's names: W_enc [d_in, d_sae], W_dec [d_sae, d_out]."""
    return {
        "W_enc": random(d_in, D_SAE, seed=1),
        "b_enc": random(D_SAE, seed=2),
        "W_dec": random(D_SAE, d_out, seed=3),
        "b_dec": random(d_out, seed=4),
        "threshold": thresholds(D_SAE, seed=5),
    }


def write_gemma_scope(root: Path, inside: str) -> Path:
    """Gemma Scope, its transcoders too: ``params.npz``, in the folder that says layer, width and L0."""
    (root / inside).mkdir(parents=True)
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in jumprelu_parameters().items()}
    np.savez(root / inside / "params.npz", **arrays)
    return root


GEMMA_3_HOOKS = {
    "resid_post": ("model.layers.{}.output", None),
    "attn_out": ("model.layers.{}.self_attn.o_proj.input", None),
    "mlp_out": ("model.layers.{}.post_feedforward_layernorm.output", None),
    "transcoder": (
        "model.layers.{}.pre_feedforward_layernorm.output",
        "model.layers.{}.post_feedforward_layernorm.output",
    ),
}


def write_gemma_scope_2(root: Path, inside: str, d_out: int = D_IN, *, config: bool = True, **changes: Any) -> Path:
    """Gemma Scope 2: ``params.safetensors`` and ``config.json``, whose entries ``changes`` replaces; an SAE's hook out
    is its hook in."""
    folder = root / inside
    folder.mkdir(parents=True)
    affine = inside.endswith("_affine")
    tensors = {name.replace("W_", "w_"): tensor for name, tensor in jumprelu_parameters(d_out=d_out).items()}
    skip = {"affine_skip_connection": random(D_IN, d_out, seed=6)} if affine else {}
    save_file({**tensors, **skip}, folder / "params.safetensors")
    if config:
        layer = inside.partition("layer_")[2].partition("_")[0]
        hook, hook_out = GEMMA_3_HOOKS[inside.partition("/")[0].removesuffix("_all")]
        hooks = {"hf_hook_point_in": hook.format(layer), "hf_hook_point_out": (hook_out or hook).format(layer)}
        stated = {**hooks, "width": D_SAE, "model_name": "gemma-v3-4b-pt", "architecture": "jump_relu", "l0": 60}
        stated |= {"affine_connection": affine, "type": "transcoder" if hook_out else "sae", **changes}
        (folder / "config.json").write_text(json.dumps(stated))
    return root


def write_gemma_scope_2_clt(root: Path, inside: str, layers: int = 3) -> Path:
    """A layer of Gemma Scope 2's cross-layer transcoders: one file, whose w_dec [F, layers, D] is for several."""
    file = root / f"{inside}.safetensors"
    file.parent.mkdir(parents=True)
    tensors = {name.replace("W_", "w_"): tensor for name, tensor in jumprelu_parameters().items()}
    save_file({**tensors, "w_dec": random(D_SAE, layers, D_IN, seed=3)}, file)
    return root


def write_mntss(root: Path, layer: int = 2, layers: int = 3, threshold: Tensor | None = None, **changes: Any) -> Path:
    """A layer of mntss's cross-layer transcoders: its encoder and its decoders in a file each, and one ``config.yaml``
    for all layers."""
    root.mkdir(exist_ok=True)
    encoder = {"W_enc": random(D_SAE, D_IN, seed=1), "b_enc": random(D_SAE, seed=2), "b_dec": random(D_IN, seed=4)}
    encoder |= {} if threshold is None else {"threshold": threshold}
    save_file({f"{name}_{layer}": tensor for name, tensor in encoder.items()}, root / f"W_enc_{layer}.safetensors")
    decoder = {f"W_dec_{layer}": random(D_SAE, layers, D_IN, seed=3)}
    save_file(decoder, root / f"W_dec_{layer}.safetensors")
    stated = {"model_name": "google/gemma-2-2b", "model_kind": "cross_layer_transcoder"}
    stated |= {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out", **changes}
    (root / "config.yaml").write_text(yaml.safe_dump(stated))
    return root


def dictionary_learning_tensors(dict_class: str) -> dict[str, Tensor]:
    """The state dict of a class of dictionary_learning, as ``ae.pt`` holds it."""
    linear = {"encoder.weight": random(D_SAE, D_IN, seed=1), "decoder.weight": random(D_IN, D_SAE, seed=3)}
    biased, b_dec = {**linear, "encoder.bias": random(D_SAE, seed=2)}, random(D_IN, seed=4)
    batch_topk = {"threshold": torch.tensor(0.7), "k": torch.tensor(K, dtype=torch.int32)}
    plain = {name: tensor for name, tensor in jumprelu_parameters().items() if name != "threshold"}
    gated = {name: random(D_SAE, seed=5 + seed) for seed, name in enumerate(["r_mag", "gate_bias", "mag_bias"])}
    return {
        "AutoEncoder": {**biased, "bias": b_dec},
        "GatedAutoEncoder": {**linear, **gated, "decoder_bias": b_dec},
        "AutoEncoderTopK": {**biased, **batch_topk, "b_dec": b_dec},
        "AutoEncoderTopK of 2024": {**biased, "b_dec": b_dec},
        "BatchTopKSAE": {**biased, **batch_topk, "b_dec": b_dec},
        "MatryoshkaBatchTopKSAE": {**plain, **batch_topk, "group_sizes": torch.tensor([12, 36])},
        "JumpReluAutoEncoder": jumprelu_parameters(),
    }[dict_class]


def write_dictionary_learning(
    root: Path, inside: str, dict_class: str, dtype: torch.dtype = torch.float32, **trainer: Any
) -> Path:
    """dictionary_learning as SAEBench publishes it: ``ae.pt`` and ``config.json`` with trainer and buffer; entries of
    ``trainer`` replace those of its trainer, None leaves one out."""
    folder = root / inside
    folder.mkdir(parents=True)
    layer = int(inside.partition("resid_post_layer_")[2].partition("/")[0].partition("_")[0] or 0)
    stated: dict[str, Any] = {"trainer_class": "Trainer", "dict_class": dict_class.split()[0], "lr": 3e-4, "seed": 0}
    stated |= {"activation_dim": D_IN, "dict_size": D_SAE, "k": K, "device": "cuda:0", "layer": layer, "steps": 244140}
    stated |= {"lm_name": "google/gemma-2-2b", "wandb_name": "x", "submodule_name": f"resid_post_layer_{layer}"}
    kept = {name: value for name, value in {**stated, **trainer}.items() if value is not None}
    buffer = {"d_submodule": D_IN, "io": "out", "n_ctxs": 2000, "ctx_len": 128, "device": "cuda:0"}
    (folder / "config.json").write_text(json.dumps({"trainer": kept, "buffer": buffer}))
    tensors = dictionary_learning_tensors(dict_class)
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    torch.save(stored, folder / "ae.pt")
    return root


def write_sae_lens(root: Path, inside: str, **changes: Any) -> Path:
    """SAELens's own form with the flat ``cfg.json`` of its versions 2 to 5, whose entries ``changes`` replaces."""
    folder = root / inside
    folder.mkdir(parents=True)
    stated = {"model_name": "gpt2-small", "hook_point": "blocks.1.hook_resid_pre", "hook_point_layer": 1}
    stated |= {"hook_point_head_index": None, "d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu"}
    stated |= {"prepend_bos": True, "context_size": 128, "activation_fn_str": "relu", "expansion_factor": 32}
    stated |= {"dataset_path": "Skylion007/openwebtext", "finetuning_scaling_factor": False, **changes}
    (folder / "cfg.json").write_text(json.dumps(stated))
    tensors = jumprelu_parameters()
    if stated.get("architecture") != "jumprelu":
        tensors = {**tensors, "scaling_factor": torch.ones(D_SAE)}  # as versions 2 and 3 wrote it, to no effect
        del tensors["threshold"]
    save_file(tensors, folder / "sae_weights.safetensors")
    return root


def write_sparsify(root: Path, inside: str, **changes: Any) -> Path:
    """EleutherAI's sparsify: ``sae.safetensors`` and ``cfg.json``, whose entries ``changes`` replaces, in a folder with
    the name of a module."""
    folder = root / inside
    folder.mkdir(parents=True)
    stated = {"activation": "topk", "expansion_factor": D_SAE // D_IN, "normalize_decoder": True, "num_latents": D_SAE}
    stated |= {"k": K, "multi_topk": False, "skip_connection": False, "d_in": D_IN, **changes}
    (folder / "cfg.json").write_text(json.dumps(stated))
    tensors = {"encoder.weight": random(D_SAE, D_IN, seed=1), "encoder.bias": random(D_SAE, seed=2)}
    save_file(
        {**tensors, "W_dec": random(D_SAE, D_IN, seed=3), "b_dec": random(D_IN, seed=4)}, folder / "sae.safetensors"
    )
    return root
