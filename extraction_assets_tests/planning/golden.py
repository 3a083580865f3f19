"""A tiny extraction of which every byte is fixed, without a library that might write other bytes one day."""

import json
from pathlib import Path
from typing import Any

from extraction_assets.planning.plan import ExtractionPlan, corpus_recipe
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus
from extraction_assets.stores.corpus_files import write_corpus
from extraction_assets_tests.stores.build import make_arrays

SAMPLES, LENGTH, START = 6, 4, 4
LAST_CHUNK = "000000000008"


def golden_settings(
    folder: Path, model_type: str = "llama", language_model: dict[str, Any] | None = None, **changes: Any
) -> ExtractionSettings:
    """An extraction of two SAEs, a plain one and one of which every option is set, made under ``folder``."""
    configuration = {"model_type": model_type, "auto_map": {"AutoModel": "code.Model"}}
    _write(folder / "model" / "config.json", json.dumps(configuration).encode())
    _write(folder / "model" / "code.py", b"")
    _write(folder / "model" / "model.safetensors", _safetensors({"weight": 4}))
    _write(folder / "model" / "tokenizer.json", b'{"model": {}}')
    for name in ("plain", "chosen"):
        _write(folder / name / "cfg.json", b'{"architecture": "standard", "d_in": 4, "d_sae": 4}')
        _write(folder / name / "sae_weights.safetensors", _safetensors({"W_enc": 16, "W_dec": 16}))
    options = {"center_input": True, "fold_decoder_norm": True, "norm_scaling_factor": 0.5, "hook_out": "layers.2"}
    values: dict[str, Any] = {
        "name": "golden",
        "language_model": {"path": str(folder / "model"), **(language_model or {})},
        "corpus": {"source": "texts", "max_length": LENGTH},
        "saes": {
            "plain": {"path": str(folder / "plain"), "hook": "layers.0"},
            "chosen": {"path": str(folder / "chosen"), "hook": "layers.1", **options},
        },
        "start_sample": START,
        "evaluation_samples": SAMPLES,
        "chunk_size": 4,
    }
    return ExtractionSettings.model_validate({**values, **changes})


def golden_plan(folder: Path, **changes: Any) -> ExtractionPlan:
    """Its plan, over a corpus of six samples that begins with sample 4."""
    settings, store = golden_settings(folder, **changes), ChunkStore(folder / "store")
    described = {"source": "texts", "tokenizer": "t", "packing": "documents"}
    corpus = write_corpus(store.corpora, make_arrays(SAMPLES, LENGTH), **described, start_sample=START)
    current = CurrentCorpus(corpus, corpus_recipe(settings), "s" * 24, corpus.manifest.fingerprint)
    store.write_current_corpus(settings.name, current)
    return ExtractionPlan(settings, store)


def _safetensors(sizes: dict[str, int]) -> bytes:
    """A safetensors file of zeros: float32 [size] by name."""
    header, end = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "F32", "shape": [size], "data_offsets": [end, end + 4 * size]}
        end += 4 * size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
