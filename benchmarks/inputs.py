"""Inputs of the benchmarks: a random language model, an SAE that fires as often as a real one, a corpus on disk."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from benchmarks.options import Options
from benchmarks.sae_inputs import calibration_tokens, save_sae
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.saes.formats import SAEWeights, read_checkpoint
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.planning.plan import corpus_recipe
from extraction_assets.planning.source_identity import source_identity
from extraction_assets.planning.tokenization import tokenizer_fingerprint
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus
from extraction_assets.stores.corpus_files import write_corpus

EXTRACTION, SAE_NAME = "benchmark", "sae"
BOS = 0
_DOCUMENT_SAMPLES = 20


class Engine(NamedTuple):
    """Model, SAE and samples, ready on a device."""

    model: LanguageModel
    sae: SAE
    weights: SAEWeights
    samples: Samples


def make_checkpoints(folder: Path, options: Options) -> None:
    """The model (``model``) and an SAE at its last block (``sae``) under ``folder``."""
    make_model(folder / "model", options)
    make_sae(folder / "sae", folder / "model", options, options.hook)


def make_model(folder: Path, options: Options) -> None:
    """A Llama with random weights in bf16, and its tokenizer."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.blocks,
        num_attention_heads=options.heads,
        num_key_value_heads=options.key_value_heads,
        head_dim=options.head_size,
        max_position_embeddings=max(options.positions, 2048),
        bos_token_id=BOS,
        eos_token_id=BOS,
    )
    torch.manual_seed(0)
    with options.torch_device:  # billions of random numbers
        model = LlamaModel(config)
    # As large as in a trained model: by default the context would outweigh the token, and features would fire on whole
    # samples instead of tokens.
    torch.nn.init.normal_(model.embed_tokens.weight)
    model.to(torch.bfloat16).save_pretrained(folder)
    _make_tokenizer(folder, options.vocabulary)


def _make_tokenizer(folder: Path, vocabulary: int) -> None:
    """One word a token: only the merge uses it, to show tokens."""
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": BOS} | {f"w{number}": number for number in range(1, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<s>", unk_token="<s>"
    ).save_pretrained(folder)


def make_sae(folder: Path, model_folder: Path, options: Options, hook: str) -> None:
    """An SAE of the options' architecture with random directions, which fires at ``hook`` at the wanted rate."""
    model = load_language_model(LocalCheckpoint(model_folder), [hook], device=options.torch_device)
    save_sae(folder, options, _calibration_outputs(model, options))


def _calibration_outputs(model: LanguageModel, options: Options) -> Tensor:
    """Hook outputs at some thousand counted positions of samples that are not in the corpus."""
    count = -(-calibration_tokens(options) // options.positions)
    corpus = random_corpus(count, options, seed=2)
    ids, mask = torch.from_numpy(corpus.token_ids).long(), torch.from_numpy(corpus.attention_mask)
    counted = mask & ~torch.from_numpy(corpus.special_tokens_mask)
    parts = []
    for start in range(0, count, options.batch_size):
        rows = slice(start, start + options.batch_size)
        (outputs,) = model.activations(ids[rows].to(model.device), mask[rows].to(model.device)).values()
        parts.append(outputs[counted[rows].to(model.device)].float())
    return torch.cat(parts)


def random_corpus(count: int, options: Options, seed: int = 0) -> TokenizedCorpus:
    """Samples of random tokens after a BOS token; every fifth one ends early and is padded."""
    rng, positions = np.random.default_rng(seed), options.positions
    lengths = np.full(count, positions)
    lengths[::5] = rng.integers(max(2, positions // 4), positions + 1, len(lengths[::5]))
    attention_mask = np.arange(positions) < lengths[:, None]  # [N, T]
    token_ids = rng.integers(1, options.vocabulary, (count, positions), dtype=np.int32)
    token_ids[:, 0] = BOS
    token_ids[~attention_mask] = 0
    special = np.zeros_like(attention_mask)
    special[:, 0] = True
    documents = np.arange(count) // _DOCUMENT_SAMPLES
    first_tokens = np.arange(count) % _DOCUMENT_SAMPLES * (positions - 1)
    names = [f"document-{number:06d}" for number in range(int(documents[-1]) + 1)]
    return TokenizedCorpus(token_ids, attention_mask, special, documents, first_tokens, names)


def extraction_settings(
    folder: Path, options: Options, count: int, *, keep_activations: bool = False, keep_features: bool = True
) -> ExtractionSettings:
    """The benchmark as an extraction of ``count`` samples."""
    sae = {"path": str(folder / "sae"), "hook": options.hook}
    return ExtractionSettings.model_validate(
        {
            "name": EXTRACTION,
            "language_model": {"path": str(folder / "model")},
            "corpus": {"source": str(folder / "source.txt"), "max_length": options.positions},
            "saes": {SAE_NAME: {**sae, "minimum_variance_explained": -1e9}},  # random directions explain nothing
            "evaluation_samples": count,
            "chunk_size": options.chunk_size,
            "top_k_examples": options.top_k,
            "statistics": options.statistics,
            "keep": {"model_activations": keep_activations, "sae_features": keep_features},
        }
    )


def store_corpus(settings: ExtractionSettings, corpus: TokenizedCorpus, home: Path) -> None:
    """The corpus on disk as the extraction's current one, as if its tokens had come from the source's text."""
    store, source = ChunkStore(home), Path(settings.corpus.source)
    source.write_text("Random tokens stand for this text.\n", "utf-8")
    identity = source_identity(find_source(settings.corpus))
    stored = write_corpus(
        store.corpora,
        corpus,
        source=source.name,
        tokenizer=tokenizer_fingerprint(settings),
        packing=settings.corpus.packing,
        start_sample=0,
    )
    fingerprint = stored.manifest.fingerprint
    current = CurrentCorpus(stored, corpus_recipe(settings), identity.fingerprint, fingerprint, *identity[1:])
    store.write_current_corpus(settings.name, current)


def load_engine(folder: Path, options: Options) -> Engine:
    """Model and SAE on the device, and the samples that the engine's stages run on."""
    weights = read_checkpoint(folder / "sae")
    device = options.torch_device
    model = load_language_model(LocalCheckpoint(folder / "model"), [options.hook], device=device)
    return Engine(model, SAE(weights, device), weights, engine_samples(options))


def engine_samples(options: Options) -> Samples:
    """The samples that the stages beside Dagster run on."""
    corpus = random_corpus(options.engine_samples, options)
    mask = torch.from_numpy(corpus.attention_mask)
    counted = mask & ~torch.from_numpy(corpus.special_tokens_mask)
    return Samples(torch.from_numpy(corpus.token_ids).long(), mask, counted, 0)
