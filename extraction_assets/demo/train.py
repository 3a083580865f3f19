"""Train the demo language model and its sparse autoencoder, measure both, and write their card.

python -m extraction_assets.demo.train --output DIR --device cuda
"""

import argparse
import copy
import json
import logging
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from extraction_assets.demo.training import quality
from extraction_assets.demo.training.card import render_card
from extraction_assets.demo.training.documents import (
    Document,
    Samples,
    cut_into_samples,
    documents_hash,
    is_held_out,
    read_documents,
)
from extraction_assets.demo.training.language_model import (
    HOOK,
    LanguageModelSettings,
    load_language_model,
    train_language_model,
)
from extraction_assets.demo.training.rounding import measure_rounded
from extraction_assets.demo.training.sae import SAESettings, load_sae, save_sae, train_sae
from extraction_assets.demo.training.tokenizer import (
    VOCABULARY_SIZE,
    save_tokenizer,
    tokenize,
    train_tokenizer,
)

MODEL_NAME = "extraction_assets/demo/language_model"
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """The training files or the held-out ones, tokenized."""

    documents: list[Document]
    token_ids: list[np.ndarray]
    """[tokens] int64 of each document."""
    samples: Samples
    """Every document cut from its start, each token counted once."""
    byte_count: int

    def figures(self) -> dict[str, int]:
        """How much text this is."""
        return {
            "files": len(self.documents),
            "bytes": self.byte_count,
            "tokens": sum(map(len, self.token_ids)),
            "samples": len(self.samples.token_ids),
        }


@dataclass(frozen=True)
class Job:
    """What every stage needs."""

    options: argparse.Namespace
    language_model: LanguageModelSettings
    sae: SAESettings
    device: torch.device
    seconds: dict[str, float]

    @property
    def language_model_folder(self) -> Path:
        """Where model and tokenizer go."""
        return self.options.output / "language_model"

    @property
    def sae_folder(self) -> Path:
        """Where the SAE goes."""
        return self.options.output / "sae"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Write down a stage's wall seconds."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 1)
        logger.info("%s took %.1f s", stage, self.seconds[stage])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write language_model/, sae/, card.json and CARD.md under --output."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    job = _job(_parser().parse_args(arguments))
    documents = read_documents(job.options.sources)
    with job.timed("tokenizer"):
        tokenizer = _train_tokenizer(job, documents)
        training = _text(job, tokenizer, [file for file in documents if not is_held_out(file.path)])
        held_out = _text(job, tokenizer, [file for file in documents if is_held_out(file.path)])
    card = {
        "command": shlex.join(["python", "-m", "extraction_assets.demo.train", *arguments]),
        "hardware": _hardware(job.device),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "text": {
            "python_version": job.options.python_version,
            "sha256": documents_hash(documents),
            "training": training.figures(),
            "held_out": held_out.figures(),
        },
        "language_model": _make_language_model(job, training, held_out),
        "sae": _make_sae(job, training, held_out),
        "seconds": job.seconds,
    }
    _write_card(job.options.output, card)


def _make_language_model(job: Job, training: Text, held_out: Text) -> dict[str, Any]:
    """Train, save and measure the language model; returns its part of the card."""
    with job.timed("language_model"):
        trained = train_language_model(training.token_ids, job.language_model, job.device, job.options.seed)
    rounding = measure_rounded(
        trained, lambda model: quality.bits_per_byte(model, held_out.samples, held_out.byte_count)
    )
    dtype = min(rounding, key=lambda dtype: rounding[dtype])
    trained.to(dtype).save_pretrained(job.language_model_folder)
    with job.timed("language_model_quality"):
        model = load_language_model(job.language_model_folder, job.device)
        baselines = quality.NGramBaselines(training.samples, VOCABULARY_SIZE)
        measured = {
            "bits_per_byte": quality.bits_per_byte(model, held_out.samples, held_out.byte_count),
            "bits_per_byte_on_training_files": quality.bits_per_byte(model, training.samples, training.byte_count),
            "bits_per_byte_unigram": baselines.unigram_bits_per_byte(held_out.samples, held_out.byte_count),
            "bits_per_byte_bigram": baselines.bigram_bits_per_byte(held_out.samples, held_out.byte_count),
        }
    return {
        "parameters": model.num_parameters(),
        "vocabulary_size": VOCABULARY_SIZE,
        "settings": asdict(job.language_model),
        "dtype": _name(dtype),
        "bits_per_byte_by_dtype": {_name(dtype): figure for dtype, figure in rounding.items()},
        **measured,
    }


def _make_sae(job: Job, training: Text, held_out: Text) -> dict[str, Any]:
    """Train the SAE on the saved language model, save and measure it; returns its part of the card."""
    model = load_language_model(job.language_model_folder, job.device)
    with job.timed("sae"):
        sample_length = job.language_model.sample_length
        trained = train_sae(model, training.token_ids, sample_length, job.sae, job.options.seed)
    rounding = measure_rounded(
        trained, lambda sae: quality.measure_sae(model, sae, held_out.samples).variance_explained
    )
    dtype = max(rounding, key=lambda dtype: rounding[dtype])
    save_sae(trained, job.sae_folder, dtype, MODEL_NAME, sample_length)
    return {
        "hook": HOOK,
        "settings": asdict(job.sae),
        "dtype": _name(dtype),
        "variance_explained_by_dtype": {_name(dtype): figure for dtype, figure in rounding.items()},
        **_measure_saved_sae(job, model, training, held_out),
    }


def _measure_saved_sae(job: Job, model: LlamaForCausalLM, training: Text, held_out: Text) -> dict[str, Any]:
    with job.timed("sae_quality"):
        sae = load_sae(job.sae_folder, job.device)
        on_held_out = quality.measure_sae(model, sae, held_out.samples)
        on_training = quality.measure_sae(model, sae, training.samples)
        spliced = quality.bits_per_byte_with_sae(model, sae, held_out.samples, held_out.byte_count)
        in_bfloat16 = quality.measure_sae(copy.deepcopy(model).bfloat16(), sae, held_out.samples)
    return {
        "positions": on_held_out.positions,
        "variance_explained": on_held_out.variance_explained,
        "variance_explained_on_training_files": on_training.variance_explained,
        "variance_explained_with_bfloat16_model": in_bfloat16.variance_explained,
        "mean_l0": on_held_out.mean_l0,
        "dead_fraction": quality.dead_fraction(on_held_out.fire_counts + on_training.fire_counts),
        "silent_fraction_on_held_out": quality.dead_fraction(on_held_out.fire_counts),
        "highest_frequency": quality.highest_frequency(on_held_out),
        "bits_per_byte_with_sae": spliced,
    }


def _train_tokenizer(job: Job, documents: list[Document]) -> PreTrainedTokenizerFast:
    texts = [document.text for document in documents if not is_held_out(document.path)]
    tokenizer = train_tokenizer(texts, job.language_model.context_length)
    save_tokenizer(tokenizer, job.language_model_folder)
    return tokenizer


def _text(job: Job, tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> Text:
    token_ids = tokenize(tokenizer, documents)
    samples = cut_into_samples(token_ids, job.language_model.sample_length)
    return Text(documents, token_ids, samples, sum(document.byte_count for document in documents))


def _write_card(output: Path, card: dict[str, Any]) -> None:
    folders = [output / "language_model", output / "sae"]
    files = sorted(path for folder in folders for path in folder.iterdir())
    card |= {"file_bytes": {path.relative_to(output).as_posix(): path.stat().st_size for path in files}}
    (output / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (output / "CARD.md").write_text(render_card(card))
    logger.info("%s", json.dumps(card, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--sources", type=Path, help="a standard library (default: the running Python's)")
    parser.add_argument(
        "--python-version",
        default=platform.python_version(),
        help="version of the Python that --sources belongs to, for the card (default: the running one)",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--language-model-steps", type=int, default=LanguageModelSettings.steps)
    parser.add_argument("--sae-steps", type=int, default=SAESettings.steps)
    return parser


def _job(options: argparse.Namespace) -> Job:
    return Job(
        options,
        replace(LanguageModelSettings(), steps=options.language_model_steps),
        replace(SAESettings(), steps=options.sae_steps),
        torch.device(options.device),
        seconds={},
    )


def _hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()
