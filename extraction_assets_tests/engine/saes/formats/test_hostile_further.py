"""Damaged and malicious files of further published formats (``test_hostile``)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.engine.saes.formats import read_checkpoint_record
from extraction_assets_tests.engine.saes.formats.published_layouts import D_IN, D_SAE
from extraction_assets_tests.engine.saes.formats.published_layouts_b import (
    linear_parameters,
    write_goodfire,
    write_kissane,
    write_llama_scope,
    write_llama_scope_r1_distill,
    write_llamascopium,
    write_mwhanna,
    write_qwen_scope,
)
from extraction_assets_tests.engine.saes.formats.test_hostile import (
    Harm,
    Spoil,
    deep,
    header,
    loop,
    merge,
    put,
    refusal,
    replaced,
    tensors,
)

QWEN, LAYER = "layer0.sae.pt", "layer_0.safetensors"
GOODFIRE, KISSANE = "Llama-3.1-8B-Instruct-SAE-l19.pth", "gpt2-small_L0_Hcat_z_lr1.20e-03_v9.pt"


def llama_scope(folder: Path) -> None:
    write_llama_scope(folder.parent, folder.name)


def llamascopium(folder: Path) -> None:
    write_llamascopium(folder)


def r1_distill(folder: Path) -> None:
    write_llama_scope_r1_distill(folder.parent, folder.name)


def qwen(folder: Path) -> None:
    write_qwen_scope(folder, QWEN)


def goodfire(folder: Path) -> None:
    write_goodfire(folder, GOODFIRE)


def kissane(folder: Path) -> None:
    write_kissane(folder, KISSANE)


def mwhanna(folder: Path) -> None:
    write_mwhanna(folder, LAYER)


INSIDE = {qwen: QWEN, goodfire: GOODFIRE, kissane: KISSANE, mwhanna: LAYER}
"""The files of SAEs that are one of several in a folder."""
NAME = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
SOUND = [llama_scope, llamascopium, r1_distill, qwen, goodfire, kissane, mwhanna]


def state(file: str, **changes: Any) -> Spoil:
    """Other entries of a file of torch.save."""

    def spoil(folder: Path) -> None:
        torch.save({**torch.load(folder / file, weights_only=True), **changes}, folder / file)

    return spoil


def cut(file: str, by: int = 9) -> Spoil:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-by])


def gone(file: str) -> Spoil:
    return lambda folder: (folder / file).unlink()


def half_of_goodfire(folder: Path) -> None:
    torch.save(linear_parameters("encoder_linear"), folder / GOODFIRE)


HYPER, FINAL, CONFIG, ST = "hyperparams.json", "final.safetensors", "config.json", "sae_weights.safetensors"
CHECKPOINT = f"checkpoints/{FINAL}"
YAML, WANDB = "config.yaml", "wandb-config.yaml"
KISSANE_CFG = KISSANE.replace(".pt", "_cfg.json")
NORM = "dataset_average_activation_norm.blocks.15.hook_resid_post"

HOSTILE: dict[str, tuple[Callable[[Path], None], str, Spoil]] = {
    "hyperparams empty": (llama_scope, HYPER, put(HYPER, "")),
    "hyperparams list": (llama_scope, HYPER, put(HYPER, "[]")),
    "hyperparams deep": (llama_scope, HYPER, put(HYPER, deep(200_000))),
    "hyperparams twice": (llama_scope, HYPER, put(HYPER, '{"d_model": 1, "d_model": 2}')),
    "hyperparams huge": (llama_scope, HYPER, lambda folder: os.truncate(folder / HYPER, 1 << 40)),
    "hyperparams folder": (llama_scope, HYPER, replaced(HYPER, Path.mkdir)),
    "hyperparams pipe": (llama_scope, HYPER, replaced(HYPER, os.mkfifo)),
    "threshold of NaN": (llama_scope, HYPER, merge(HYPER, jump_relu_threshold=float("nan"))),
    "threshold as text": (llama_scope, HYPER, merge(HYPER, jump_relu_threshold="0.5")),
    "threshold true": (llama_scope, HYPER, merge(HYPER, jump_relu_threshold=True)),
    "norms list": (llama_scope, HYPER, merge(HYPER, dataset_average_activation_norm=[1, 1])),
    "norms infinite": (llama_scope, HYPER, merge(HYPER, dataset_average_activation_norm={"in": 1e999, "out": 1})),
    "width of 30 digits": (llama_scope, HYPER, merge(HYPER, d_model=10**30)),
    "act_fn object": (llama_scope, HYPER, merge(HYPER, act_fn={"jumprelu": 1})),
    "norm_activation list": (llama_scope, HYPER, merge(HYPER, norm_activation=["dataset-wise"])),
    "final missing": (llama_scope, FINAL, gone(CHECKPOINT)),
    "final cut": (llama_scope, FINAL, cut(CHECKPOINT)),
    "final of another width": (llama_scope, FINAL, tensors(CHECKPOINT, **{"decoder.weight": torch.ones(D_IN, 7)})),
    "final of one dimension": (llama_scope, FINAL, tensors(CHECKPOINT, **{"encoder.weight": torch.ones(D_SAE)})),
    "final NaN": (llama_scope, FINAL, tensors(CHECKPOINT, **{"encoder.bias": torch.full((D_SAE,), float("nan"))})),
    "final integers": (
        llama_scope,
        FINAL,
        tensors(CHECKPOINT, **{"encoder.bias": torch.ones(D_SAE, dtype=torch.int8)}),
    ),
    "final too large": (
        llama_scope,
        FINAL,
        header(CHECKPOINT, lambda all_: all_["encoder.weight"].update(shape=[1 << 40, 1 << 40])),
    ),
    "config no JSON": (llamascopium, CONFIG, put(CONFIG, "{sae}")),
    "config kind list": (llamascopium, CONFIG, merge(CONFIG, sae_type=["sae"])),
    "config kind of another": (r1_distill, CONFIG, merge(CONFIG, sae_type="lorsa")),
    "config factor of NaN": (llamascopium, CONFIG, merge(CONFIG, expansion_factor=float("nan"))),
    "config factor infinite": (llamascopium, CONFIG, merge(CONFIG, expansion_factor=1e999)),
    "config width as text": (llamascopium, CONFIG, merge(CONFIG, d_model="16")),
    "config width none": (llamascopium, CONFIG, merge(CONFIG, d_model=None)),
    "config k as text": (llamascopium, CONFIG, merge(CONFIG, act_fn="topk", top_k="7")),
    "config k too large": (llamascopium, ST, merge(CONFIG, act_fn="topk", top_k=10**6)),
    "config hooks list": (llamascopium, CONFIG, merge(CONFIG, hook_point_in=["x"], hook_point_out=["y"])),
    "config flag as number": (r1_distill, CONFIG, merge(CONFIG, use_glu_encoder=1)),
    "weights missing": (llamascopium, ST, gone(ST)),
    "weights without encoder": (r1_distill, ST, put(ST, (2).to_bytes(8, "little") + b"{}")),
    "norm of two": (llamascopium, ST, tensors(ST, **{NORM: torch.ones(2)})),
    "norm of zero": (r1_distill, ST, tensors(ST, **{NORM: torch.zeros(())})),
    "log threshold infinite": (
        llamascopium,
        ST,
        tensors(ST, **{"activation_function.log_jumprelu_threshold": torch.full((D_SAE,), 200.0)}),
    ),
    "log threshold of another width": (
        r1_distill,
        ST,
        tensors(ST, log_jumprelu_threshold=torch.zeros(D_SAE - 1)),
    ),
    "qwen object": (qwen, QWEN, lambda folder: torch.save({"W_enc": Harm()}, folder / QWEN)),
    "qwen text": (qwen, QWEN, put(QWEN, "version https://git-lfs.github.com/spec/v1\n")),
    "qwen cut": (qwen, QWEN, lambda folder: (folder / QWEN).write_bytes((folder / QWEN).read_bytes()[:900])),
    "qwen not turned": (qwen, QWEN, state(QWEN, W_dec=torch.ones(256, D_IN))),
    "qwen without bias": (qwen, QWEN, lambda folder: torch.save({"W_enc": torch.ones(256, 16)}, folder / QWEN)),
    "qwen fewer than k": (
        qwen,
        QWEN,
        state(QWEN, W_enc=torch.ones(9, D_IN), W_dec=torch.ones(D_IN, 9), b_enc=torch.ones(9)),
    ),
    "qwen infinite": (qwen, QWEN, state(QWEN, b_enc=torch.full((256,), float("inf")))),
    "qwen pipe": (qwen, QWEN, replaced(QWEN, os.mkfifo)),
    "goodfire numbers": (goodfire, GOODFIRE, state(GOODFIRE, **{"encoder_linear.bias": 3})),
    "goodfire half": (
        goodfire,
        GOODFIRE,
        half_of_goodfire,
    ),
    "goodfire folder": (goodfire, GOODFIRE, replaced(GOODFIRE, Path.mkdir)),
    "kissane config empty": (kissane, KISSANE_CFG, put(KISSANE_CFG, "")),
    "kissane config folder": (kissane, KISSANE_CFG, replaced(KISSANE_CFG, Path.mkdir)),
    "kissane config loop": (kissane, KISSANE_CFG, replaced(KISSANE_CFG, loop)),
    "kissane head list": (kissane, KISSANE_CFG, merge(KISSANE_CFG, head=["cat"])),
    "kissane heads as text": (kissane, KISSANE_CFG, merge(KISSANE_CFG, concat_heads="yes")),
    "kissane size none": (kissane, KISSANE_CFG, merge(KISSANE_CFG, act_size=None)),
    "kissane object": (kissane, KISSANE, lambda folder: torch.save({"W_enc": Harm()}, folder / KISSANE)),
    "kissane sparse": (kissane, KISSANE, state(KISSANE, b_dec=torch.ones(D_IN).to_sparse())),
    "yaml empty": (mwhanna, YAML, put(YAML, "")),
    "yaml object": (mwhanna, YAML, put(YAML, "!!python/object/apply:os.mkdir [harm]\n")),
    "yaml bomb": (
        mwhanna,
        YAML,
        put(YAML, "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9)) + "<<: {}\n"),
    ),
    "yaml deep": (mwhanna, YAML, put(YAML, deep(5_000))),
    "yaml twice": (mwhanna, YAML, put(YAML, "k: 1\nk: 2\n")),
    "yaml huge": (mwhanna, YAML, lambda folder: os.truncate(folder / YAML, 1 << 40)),
    "yaml folder": (mwhanna, YAML, replaced(YAML, Path.mkdir)),
    "yaml activation list": (mwhanna, YAML, put(YAML, "activation: [topk]\n")),
    "yaml k of 30 digits": (mwhanna, LAYER, put(YAML, f"activation: topk\nk: {10**30}\n")),
    "wandb width as text": (mwhanna, WANDB, put(WANDB, "d_model: {value: x}\n")),
    "wandb pipe": (mwhanna, WANDB, replaced(WANDB, os.mkfifo)),
    "layer cut": (mwhanna, LAYER, cut(LAYER)),
    "layer skip of another width": (mwhanna, LAYER, tensors(LAYER, W_skip=torch.ones(D_IN, D_IN + 1))),
    "layer threshold of another width": (
        mwhanna,
        LAYER,
        tensors(LAYER, **{"activation_function.threshold": torch.ones(D_SAE + 1)}),
    ),
    "layer decoder turned": (mwhanna, LAYER, tensors(LAYER, W_dec=torch.ones(D_IN, D_SAE))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_is_refused_by_one_sentence_with_its_files_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, file, spoil = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / NAME
    make(folder)
    spoil(folder)
    message = refusal(folder, INSIDE.get(make))
    assert str(folder) in message
    assert file in message
    assert message.isprintable()
    assert len(message) < 700
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("make", SOUND)
def test_what_is_spoiled_is_sound_before(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / NAME)
    with pytest.raises(BaseException, match="DID NOT RAISE"):
        refusal(tmp_path / NAME, INSIDE.get(make))


def test_a_record_that_is_no_text_is_none(tmp_path: Path) -> None:
    write_kissane(tmp_path, "x.pt", act_name=3, model_name=["gpt2"], seq_len="128")
    record = read_checkpoint_record(tmp_path / "x.pt")
    assert (record.hook, record.model_name, record.context_size) == (None, None, None)


def test_the_list_has_every_format() -> None:
    assert {make for make, _, _ in HOSTILE.values()} == set(SOUND)
