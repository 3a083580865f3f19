"""Checkpoints of SAEs that are damaged or made to harm: each is refused by one sentence with its file's name."""

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.engine.file_boundary import npz
from extraction_assets.engine.saes.formats import CheckpointError
from extraction_assets.engine.saes.located_checkpoint import read_sae, read_sae_record, sae_files
from extraction_assets.settings import ResolvedSae
from extraction_assets_tests import tiny

D, F = tiny.D_MODEL, tiny.NUM_FEATURES
Spoil = Callable[[Path], object]

# --------------------------------------------------------------------------------------- one sound SAE of every format


def saelens(folder: Path) -> None:
    tiny.make_sae(folder)


def jumprelu(folder: Path) -> None:
    tiny.make_sae(folder, "jumprelu")


def topk(folder: Path) -> None:
    tiny.make_sae(folder, "topk")


def gemma_scope(folder: Path) -> None:
    folder.mkdir()
    np.savez(folder / "params.npz", **gemma_arrays())  # type: ignore[arg-type]


def gemma_arrays() -> dict[str, Any]:
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,), "threshold": (F,)}
    return {name: np.full(shape, 0.25, np.float32) for name, shape in shapes.items()}


def dictionary_learning(folder: Path) -> None:
    folder.mkdir()
    torch.save(ae_tensors(), folder / "ae.pt")
    config = {"trainer": {"dict_class": "AutoEncoderTopK", "k": 3}}
    (folder / "config.json").write_text(json.dumps(config))


def ae_tensors() -> dict[str, Tensor]:
    shapes = {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F), "b_dec": (D,)}
    return {name: torch.full(shape, 0.25) for name, shape in shapes.items()}


def sparsify(folder: Path) -> None:
    folder.mkdir()
    shapes = {"encoder.weight": (F, D), "encoder.bias": (F,), "W_dec": (F, D), "b_dec": (D,)}
    save_file({name: torch.full(shape, 0.25) for name, shape in shapes.items()}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"k": 3, "d_in": D, "num_latents": F}))


SOUND = [saelens, jumprelu, topk, gemma_scope, dictionary_learning, sparsify]


# ------------------------------------------------------------------------------------------------ what is done to files


def put(name: str, content: bytes | str) -> Spoil:
    """Other bytes in place of a file."""
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def merge(name: str, **changes: Any) -> Spoil:
    """Other entries of a configuration."""

    def spoil(folder: Path) -> None:
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, **changes}))

    return spoil


def replaced(name: str, make: Callable[[Path], object]) -> Spoil:
    """Something else than a file in its place."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


def tensors(name: str, **changes: Tensor) -> Spoil:
    """Other tensors of a safetensors file."""
    return lambda folder: save_file({**load_file(folder / name), **changes}, folder / name)


def header(name: str, change: Callable[[dict[str, Any]], object], *, length: int | None = None) -> Spoil:
    """Another header before the same bytes of a safetensors file."""

    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        size = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + size])
        change(entries)
        written = json.dumps(entries).encode()
        start = (len(written) if length is None else length).to_bytes(8, "little")
        (folder / name).write_bytes(start + written + content[8 + size :])

    return spoil


def arrays(**changes: Any) -> Spoil:
    return lambda folder: np.savez(folder / "params.npz", **{**gemma_arrays(), **changes})


def npz_members(change: Callable[[zipfile.ZipFile], object], *, without: str = "W_enc.npy") -> Spoil:
    """Another member in place of one of ``params.npz``."""

    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / "params.npz") as archive:
            kept = {name: archive.read(name) for name in archive.namelist() if name != without}
        with zipfile.ZipFile(folder / "params.npz", "w") as archive:
            for name, content in kept.items():
                archive.writestr(name, content)
            change(archive)

    return spoil


def npy(shape: tuple[int, ...], content: bytes = b"", dtype: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": dtype})
    return stream.getvalue() + content


def claims_a_terabyte(archive: zipfile.ZipFile) -> None:
    archive.writestr("W_dec.npy", npy((F, D), bytes(4 * F * D)))
    archive.filelist[-1].file_size = 1 << 40


def state_dict(**changes: Any) -> Spoil:
    return lambda folder: torch.save({**ae_tensors(), **changes}, folder / "ae.pt")


class Harm:
    """What a pickle of it would do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def pt_members(change: Callable[[str, bytes], bytes], *, packed: bool = False) -> Spoil:
    """Other contents of the members of ``ae.pt``."""

    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / "ae.pt") as archive:
            kept = {name: archive.read(name) for name in archive.namelist()}
        kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        with zipfile.ZipFile(folder / "ae.pt", "w", kind) as archive:
            for name, content in kept.items():
                archive.writestr(name, change(name, content))

    return spoil


def out_of_bounds(name: str, content: bytes) -> bytes:
    """The pickle of a matrix that is larger than its storage: F x D becomes F x 16 D."""
    return (
        content.replace(bytes([ord("K"), D]), bytes([ord("K"), 16 * D - 1])) if name.endswith("data.pkl") else content
    )


def legacy_pickle(folder: Path) -> None:
    torch.save(ae_tensors(), folder / "ae.pt", _use_new_zipfile_serialization=False)


def deep(depth: int, open_: str = "[", close: str = "]") -> str:
    return open_ * depth + close * depth


def bare_pickle(folder: Path) -> None:
    (folder / "ae.pt").write_bytes(pickle.dumps(Harm()))


def scaled(value: str) -> Spoil:
    def spoil(folder: Path) -> None:
        merge("cfg.json", normalize_activations="expected_average_only_in")(folder)
        (folder / "activation_scaler.json").write_text(f'{{"scaling_factor": {value}}}')

    return spoil


def linked_to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def loop(path: Path) -> None:
    path.symlink_to(path.name + ".other")
    (path.parent / (path.name + ".other")).symlink_to(path.name)


CFG, ST, NPZ, PT, SP = "cfg.json", "sae_weights.safetensors", "params.npz", "ae.pt", "sae.safetensors"

HOSTILE: dict[str, tuple[Callable[[Path], None], str, Spoil]] = {
    # cfg.json
    "empty": (saelens, CFG, put(CFG, "")),
    "list": (saelens, CFG, put(CFG, "[]")),
    "number": (saelens, CFG, put(CFG, "7")),
    "null": (sparsify, CFG, put(CFG, "null")),
    "deep list": (saelens, CFG, put(CFG, deep(200_000))),
    "deep object": (sparsify, CFG, put(CFG, deep(200_000, '{"a":', "1}").replace(":1", ":1", 1))),
    "deep value": (saelens, CFG, put(CFG, '{"architecture": ' + deep(500) + "}")),
    "key twice": (saelens, CFG, put(CFG, '{"architecture": "standard", "architecture": "topk"}')),
    "not utf-8": (saelens, CFG, put(CFG, b'{"architecture": "\xff\xfe"}')),
    "utf-16": (sparsify, CFG, put(CFG, '{"k": 3}'.encode("utf-16"))),
    "half a surrogate pair": (saelens, CFG, put(CFG, '{"architecture": "\\ud800"}')),
    "huge number": (topk, CFG, put(CFG, '{"architecture": "topk", "k": ' + "9" * 5000 + "}")),
    "huge file": (saelens, CFG, lambda folder: os.truncate(folder / CFG, 1 << 40)),
    "architecture list": (saelens, CFG, merge(CFG, architecture=["standard"])),
    "architecture object": (saelens, CFG, merge(CFG, architecture={})),
    "activation list": (saelens, CFG, merge(CFG, activation_fn=["relu"])),
    "flag as text": (saelens, CFG, merge(CFG, apply_b_dec_to_input="false")),
    "rescale as number": (saelens, CFG, merge(CFG, rescale_acts_by_decoder_norm=2)),
    "normalization object": (saelens, CFG, merge(CFG, normalize_activations={"none": 1})),
    "negative k": (topk, ST, merge(CFG, k=-3)),
    "k of 30 digits": (topk, ST, merge(CFG, k=10**30)),
    "k not a number": (topk, CFG, merge(CFG, k=float("nan"))),
    "negative width": (saelens, CFG, merge(CFG, d_in=-16)),
    "width as text": (saelens, CFG, merge(CFG, d_sae="48")),
    "expansion as text": (sparsify, CFG, merge(CFG, num_latents=None, d_in=10**9, expansion_factor="x")),
    "latents list": (sparsify, CFG, merge(CFG, num_latents=[48])),
    "transcode as text": (sparsify, CFG, merge(CFG, transcode="false")),
    "skip as text": (sparsify, CFG, merge(CFG, skip_connection="no")),
    "cfg folder": (saelens, CFG, replaced(CFG, Path.mkdir)),
    "cfg pipe": (sparsify, CFG, replaced(CFG, os.mkfifo)),
    "cfg loop": (saelens, CFG, replaced(CFG, loop)),
    "cfg device": (saelens, CFG, replaced(CFG, linked_to("/dev/zero"))),
    "scale of NaN": (saelens, "activation_scaler.json", scaled("NaN")),
    "scale of zero": (saelens, "activation_scaler.json", scaled("0")),
    "scale of text": (saelens, "activation_scaler.json", scaled('"1"')),
    # safetensors
    "no bytes": (saelens, ST, put(ST, b"")),
    "seven bytes": (sparsify, SP, put(SP, b"\x01" * 7)),
    "header longer than the file": (saelens, ST, header(ST, lambda _: None, length=1 << 60)),
    "header no JSON": (saelens, ST, put(ST, (4).to_bytes(8, "little") + b"{'a}")),
    "header deep": (saelens, ST, put(ST, (200_000).to_bytes(8, "little") + deep(100_000).encode())),
    "header list": (sparsify, SP, put(SP, (2).to_bytes(8, "little") + b"[]")),
    "NaN in a shape": (saelens, ST, header(ST, lambda all_: all_["W_enc"].update(shape=[float("nan"), 48]))),
    "negative shape": (saelens, ST, header(ST, lambda all_: all_["W_enc"].update(shape=[-16, -48]))),
    "shape too large": (saelens, ST, header(ST, lambda all_: all_["W_enc"].update(shape=[1 << 40, 1 << 40]))),
    "offsets overlap": (saelens, ST, header(ST, lambda all_: all_["b_enc"].update(all_["b_dec"], shape=[16]))),
    "offsets beyond": (sparsify, SP, header(SP, lambda all_: all_["b_dec"].update(data_offsets=[1 << 40, 1 << 41]))),
    "unknown dtype": (saelens, ST, header(ST, lambda all_: all_["W_enc"].update(dtype="F31"))),
    "entry no object": (saelens, ST, header(ST, lambda all_: all_.update(W_enc=None))),
    "bytes behind": (saelens, ST, lambda folder: (folder / ST).write_bytes((folder / ST).read_bytes() + b"more")),
    "cut": (sparsify, SP, lambda folder: (folder / SP).write_bytes((folder / SP).read_bytes()[:-5])),
    "int8 weights": (saelens, ST, tensors(ST, W_enc=torch.ones(D, F, dtype=torch.int8))),
    "float8 weights": (saelens, ST, tensors(ST, W_dec=torch.ones(F, D).to(torch.float8_e4m3fn))),
    "three dimensions": (saelens, ST, tensors(ST, W_enc=torch.ones(D, F, 1))),
    "bias of no dimension": (jumprelu, ST, tensors(ST, b_enc=torch.tensor(1.0))),
    "decoder of no dimension": (saelens, ST, tensors(ST, W_dec=torch.tensor(1.0))),
    "no features": (saelens, ST, tensors(ST, W_enc=torch.ones(D, 0), W_dec=torch.ones(0, D), b_enc=torch.ones(0))),
    "decoder of another width": (saelens, ST, tensors(ST, W_dec=torch.ones(F, D + 1))),
    "decoder not turned": (saelens, ST, tensors(ST, W_dec=torch.ones(D, F))),
    "NaN": (saelens, ST, tensors(ST, b_dec=torch.full((D,), float("nan")))),
    "infinite threshold": (jumprelu, ST, tensors(ST, threshold=torch.full((F,), float("inf")))),
    "infinite factor": (saelens, ST, tensors(ST, finetuning_scaling_factor=torch.full((F,), float("inf")))),
    "weights folder": (saelens, ST, replaced(ST, Path.mkdir)),
    "weights pipe": (sparsify, SP, replaced(SP, os.mkfifo)),
    "weights loop": (sparsify, SP, replaced(SP, loop)),
    # npz
    "npz no zip": (gemma_scope, NPZ, put(NPZ, b"PK\x03\x04 and no more")),
    "npz empty": (gemma_scope, NPZ, put(NPZ, b"")),
    "npz cut": (gemma_scope, NPZ, lambda folder: (folder / NPZ).write_bytes((folder / NPZ).read_bytes()[:-40])),
    "npz bomb": (gemma_scope, NPZ, npz_members(claims_a_terabyte, without="W_dec.npy")),
    "npz shape beyond": (gemma_scope, NPZ, npz_members(lambda a: a.writestr("W_enc.npy", npy((1 << 40, 1 << 20))))),
    "npz negative shape": (gemma_scope, NPZ, npz_members(lambda a: a.writestr("W_enc.npy", npy((-4, -4), bytes(64))))),
    "npz no header": (gemma_scope, NPZ, npz_members(lambda a: a.writestr("W_enc.npy", b"\x93NUMPY\x07\x00"))),
    "npz twice": (
        gemma_scope,
        NPZ,
        npz_members(lambda a: a.writestr("w_enc.npy", npy((D, F), bytes(4 * D * F))), without=""),
    ),
    "npz object": (gemma_scope, NPZ, arrays(threshold=np.array([{}], object))),
    "npz texts": (gemma_scope, NPZ, arrays(b_enc=np.array(["1.0"] * F))),
    "npz integers": (gemma_scope, NPZ, arrays(W_enc=np.ones((D, F), np.int8))),
    "npz complex": (gemma_scope, NPZ, arrays(W_enc=np.ones((D, F), np.complex64))),
    "npz scalar bias": (gemma_scope, NPZ, arrays(b_enc=np.float32(0))),
    "npz NaN": (gemma_scope, NPZ, arrays(W_dec=np.full((F, D), np.nan, np.float32))),
    "npz folder": (gemma_scope, NPZ, replaced(NPZ, Path.mkdir)),
    "npz pipe": (gemma_scope, NPZ, replaced(NPZ, os.mkfifo)),
    # pt
    "pt bare pickle": (dictionary_learning, PT, bare_pickle),
    "pt object": (dictionary_learning, PT, state_dict(other=Harm())),
    "pt legacy": (dictionary_learning, PT, legacy_pickle),
    "pt text": (dictionary_learning, PT, put(PT, "version https://git-lfs.github.com/spec/v1\n")),
    "pt cut": (dictionary_learning, PT, lambda folder: (folder / PT).write_bytes((folder / PT).read_bytes()[:900])),
    "pt packed": (dictionary_learning, PT, pt_members(lambda _, content: content, packed=True)),
    "pt pickle damaged": (dictionary_learning, PT, pt_members(lambda name, c: c[:40] if "data.pkl" in name else c)),
    "pt out of bounds": (dictionary_learning, PT, pt_members(out_of_bounds)),
    "pt list": (dictionary_learning, PT, lambda folder: torch.save([torch.ones(2)], folder / PT)),
    "pt numbers": (dictionary_learning, PT, state_dict(b_dec=3)),
    "pt names no texts": (dictionary_learning, PT, lambda folder: torch.save({1: torch.ones(1)}, folder / PT)),
    "pt view of one number": (dictionary_learning, PT, state_dict(b_dec=torch.ones(1).expand(1 << 40))),
    "pt sparse": (dictionary_learning, PT, state_dict(b_dec=torch.ones(D).to_sparse())),
    "pt meta": (dictionary_learning, PT, state_dict(b_dec=torch.ones(D, device="meta"))),
    "pt integers": (dictionary_learning, PT, state_dict(b_dec=torch.ones(D, dtype=torch.int32))),
    "pt k of two": (dictionary_learning, PT, state_dict(k=torch.tensor([1, 2]))),
    "pt infinite": (dictionary_learning, PT, state_dict(b_dec=torch.full((D,), float("inf")))),
    "pt pipe": (dictionary_learning, PT, replaced(PT, os.mkfifo)),
    "pt class list": (dictionary_learning, "config.json", merge("config.json", trainer={"dict_class": []})),
    "pt config deep": (dictionary_learning, "config.json", put("config.json", '{"trainer":' + deep(100_000) + "}")),
    "pt config twice": (dictionary_learning, "config.json", put("config.json", '{"trainer": 1, "trainer": 2}')),
}


def refusal(folder: Path, inside: str | None = None) -> str:
    """The one sentence by which all that reads a checkpoint refuses it; ``inside`` names it in a folder of several."""
    settings = ResolvedSae(path=str(folder), subfolder=inside, hook="layers.0")

    def everything() -> None:
        sae_files(settings.checkpoint)
        read_sae_record(settings.checkpoint)
        read_sae(settings)

    with pytest.raises(CheckpointError) as caught:
        everything()
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_is_refused_by_one_sentence_with_its_files_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, file, spoil = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "sae")
    spoil(tmp_path / "sae")
    message = refusal(tmp_path / "sae")
    assert str(tmp_path / "sae") in message
    assert file in message
    assert message.isprintable()
    assert len(message) < 700
    assert not (tmp_path / "harm").exists()


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "_FREE", 1 << 20)
    (tmp_path / "sae").mkdir()
    zeros = {"W_enc": np.zeros((D, 1 << 16), np.float32), "W_dec": np.zeros((1 << 16, D), np.float32)}
    np.savez_compressed(tmp_path / "sae" / NPZ, **zeros)
    assert re.search(r"params.npz has [0-9,]+ bytes and would unpack to 8,388,864", refusal(tmp_path / "sae"))


def test_a_shape_that_its_bytes_cannot_fill_is_named_before_it_is_made(tmp_path: Path) -> None:
    make, _, spoil = HOSTILE["npz shape beyond"]
    make(tmp_path / "sae")
    spoil(tmp_path / "sae")
    assert "W_enc of shape (1099511627776, 1048576) in 128 bytes, expected 4,611,686" in refusal(tmp_path / "sae")


@pytest.mark.parametrize("make", SOUND)
def test_what_is_spoiled_is_sound_before(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "sae")
    assert read_sae(ResolvedSae(path=str(tmp_path / "sae"), hook="layers.0")).latent_dim == F


def test_the_list_is_long_enough_and_has_every_format() -> None:
    assert len(HOSTILE) >= 45
    assert {make for make, _, _ in HOSTILE.values()} == set(SOUND)
