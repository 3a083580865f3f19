"""Weights go to their device one tensor after the other: an SAE needs little more memory than its own size."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from extraction_assets.engine.saes.decoder_parts import decoder_parts
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.settings import ResolvedSae

WIDTH, FEATURES = 1024, 6_144
SIZE = 2 * 4 * WIDTH * FEATURES
"""50 MB in float32."""


def gemma_scope(folder: Path, tensors: dict[str, Tensor]) -> None:
    arrays = {name.replace("W_", "w_"): tensor.numpy() for name, tensor in tensors.items()}
    np.savez(folder / "params.npz", **arrays)


def packed_gemma_scope(folder: Path, tensors: dict[str, Tensor]) -> None:
    np.savez_compressed(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})


def saelens(folder: Path, tensors: dict[str, Tensor]) -> None:
    (folder / "cfg.json").write_text('{"architecture": "jumprelu"}')
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")


def dictionary_learning(folder: Path, tensors: dict[str, Tensor]) -> None:
    (folder / "config.json").write_text('{"trainer": {"dict_class": "BatchTopKSAE"}}')
    named = {"encoder.weight": tensors["W_enc"].t().contiguous(), "encoder.bias": tensors["b_enc"]}
    named |= {"decoder.weight": tensors["W_dec"].t().contiguous(), "b_dec": tensors["b_dec"]}
    torch.save({**named, "threshold": torch.tensor(0.5), "k": torch.tensor(20)}, folder / "ae.pt")


def llama_scope(folder: Path, tensors: dict[str, Tensor]) -> None:
    hook, norm = "blocks.1.hook_resid_post", {"in": 16.0, "out": 16.0}
    hyperparams = {"hook_point_in": hook, "hook_point_out": hook, "d_model": WIDTH, "d_sae": FEATURES}
    hyperparams |= {"jump_relu_threshold": 0.5, "dataset_average_activation_norm": norm}
    (folder / "hyperparams.json").write_text(json.dumps({**hyperparams, "sparsity_include_decoder_norm": True}))
    (folder / "checkpoints").mkdir()
    named = {"encoder.weight": tensors["W_enc"].t(), "encoder.bias": tensors["b_enc"]}
    named |= {"decoder.weight": tensors["W_dec"].t(), "decoder.bias": tensors["b_dec"]}
    stored = {name: tensor.contiguous().bfloat16() for name, tensor in named.items()}
    save_file(stored, folder / "checkpoints" / "final.safetensors")


def llamascopium(folder: Path, tensors: dict[str, Tensor]) -> None:
    hook = "blocks.1.hook_resid_post"
    config = {"hook_point_in": hook, "hook_point_out": hook, "d_model": WIDTH, "expansion_factor": FEATURES / WIDTH}
    (folder / "config.json").write_text(json.dumps({**config, "act_fn": "relu"}))
    named = {"W_E": "W_enc", "b_E": "b_enc", "W_D": "W_dec", "b_D": "b_dec"}
    norm = {f"dataset_average_activation_norm.{hook}": torch.tensor(16.0)}
    save_file({**{name: tensors[key] for name, key in named.items()}, **norm}, folder / "sae_weights.safetensors")


def parameters() -> dict[str, Tensor]:
    """Of a jumprelu SAE; each number is a power of two, so that all is packed and rounded without loss."""
    matrices = {"W_enc": torch.full((WIDTH, FEATURES), 0.5), "W_dec": torch.full((FEATURES, WIDTH), 0.25)}
    return {
        **matrices,
        "b_enc": torch.zeros(FEATURES),
        "b_dec": torch.zeros(WIDTH),
        "threshold": torch.ones(FEATURES),
    }


LAYOUTS = [gemma_scope, packed_gemma_scope, saelens, dictionary_learning, llama_scope, llamascopium]


class Peak(threading.Thread):
    """The most anonymous memory of this process while it is in the block, in bytes above that at its beginning."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over, self._before, self.most = threading.Event(), self._now(), 0

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])

    def run(self) -> None:
        while not self._over.wait(0.002):
            self.most = max(self.most, self._now() - self._before)

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


READ_IN_PARTS = [saelens, llama_scope, llamascopium]


def print_peaks() -> None:
    """As JSON: the name of each layout and the peaks of reading it, in bytes, whole and where that can be done its
    decoder in parts."""
    peaks = {}
    for write in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), parameters())
            ways = [_read_whole, _read_in_parts] if write in READ_IN_PARTS else [_read_whole]
            peaks[write.__name__] = [_least_peak(read, folder) for read in ways]
    print(json.dumps(peaks))


def _read_whole(folder: str) -> int:
    return load_sae(folder).latent_dim


def _read_in_parts(folder: str) -> int:
    return sum(len(part) for part in decoder_parts(ResolvedSae(path=folder, hook="layers.1")))


def _least_peak(read: Callable[[str], int], folder: str) -> int:
    """Of two, once what ``read`` needs is imported; it returns how many features it has seen."""
    peaks = []
    for _ in range(3):
        with Peak() as peak:
            assert read(folder) == FEATURES
        peaks.append(peak.most)
    return min(peaks[1:])


def printed_by_own_process(function: Callable[[], None]) -> dict[str, Any]:
    """What the function, one of a module, prints as JSON in a process of its own, where all that is freed goes back to
    the system at once. In this one malloc may hand out again what other tests have left, which would not be seen, and
    keep what was freed, which would count as held."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16), "PYTHONPATH": os.pathsep.join(sys.path)}
    module = function.__module__
    command = [sys.executable, "-c", f"import {module}; {module}.{function.__name__}()"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def peaks() -> dict[str, list[int]]:
    return printed_by_own_process(print_peaks)


ON_LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")


@pytest.mark.slow
@ON_LINUX
@pytest.mark.parametrize("write", LAYOUTS)
def test_reading_needs_no_second_copy(
    write: Callable[[Path, dict[str, Tensor]], None], peaks: dict[str, list[int]]
) -> None:
    assert 0.9 * SIZE < peaks[write.__name__][0] < 1.4 * SIZE


@pytest.mark.slow
@ON_LINUX
@pytest.mark.parametrize("write", READ_IN_PARTS)
def test_decoder_rows_in_parts_need_little_of_the_memory_of_the_whole(
    write: Callable[[Path, dict[str, Tensor]], None], peaks: dict[str, list[int]]
) -> None:
    assert 0.2 * SIZE < peaks[write.__name__][1] < 0.4 * SIZE  # under load 0.33
