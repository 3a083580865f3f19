"""CARD.md: the model card, every figure of which is taken from card.json."""

from typing import Any

TEMPLATE = """\
# Demo language model and sparse autoencoder

A small language model of Python source code and a sparse autoencoder (SAE) on its residual stream. They are
here so that an extraction can run in a minute, on any machine and without a download, on features that were
really learned. They are no good for anything else.

| | |
|---|---|
| `language_model/` | decoder-only Llama: {parameters:,} parameters, {blocks} blocks, width {d_model}, \
{heads} heads, tied embeddings, byte-level BPE of {vocabulary_size:,} tokens |
| `sae/` | TopK SAE in SAELens 6 form: {d_sae:,} latents, k = {k}, reads the output of `{hook}` |
| files | {megabytes:.1f} MB in all; weights as safetensors, the model's in {language_model_dtype}, the \
SAE's in {sae_dtype} |

One special token, `<|endoftext|>` (id 0), is BOS, EOS and padding; the tokenizer never adds it by itself.

## Text

The Python sources of the standard library of Python {python_version}, without its tests, as
`extraction_assets.engine.corpora.standard_library` lists them: {file_count:,} files, {byte_count:,} bytes, SHA-256 of
paths and texts `{sha256}`.

A tenth of the files, chosen by the hash of their path, is held out: {held_out_files} files, \
{held_out_bytes:,} bytes, {held_out_tokens:,} tokens.
Tokenizer, model and SAE were trained on the other {training_files} files alone: {training_bytes:,} bytes, \
{training_tokens:,} tokens.

A sample is BOS and up to {piece_length} tokens of one file. Every pass over the files cuts them elsewhere.

## Training

    {command}

(`--sources` names a copy of that standard library; without it the running Python's is read)
on one {hardware}: tokenizer {tokenizer_seconds:.0f} s, model {language_model_seconds:.0f} s, SAE \
{sae_seconds:.0f} s, measuring {quality_seconds:.0f} s.
Versions: {versions}.
The seed fixes the initial weights and the order of the text; another GPU or library version gives slightly
different weights all the same.

- Model: {steps:,} steps of {batch_size} samples, bfloat16 autocast, AdamW (peak learning rate \
{learning_rate:g}, cosine, weight decay {weight_decay:g}), dropout {dropout:g}.
- SAE: {sae_steps:,} steps of {sae_batch_size:,} positions of the saved model's activations (text tokens
  alone, no BOS, no padding), Adam (peak learning rate {sae_learning_rate:g}), unit-norm decoder rows,
  auxiliary loss for dead latents (Gao et al. 2024). It was trained on activations of unit scale; the scale
  is folded into its biases.

## Measured

With the 16-bit weights as saved, computing in float32, on the held-out files unless a row says otherwise.

| figure | value |
|---|---|
| model, bits per byte | **{bits_per_byte:.3f}** |
| same, on the training files | {bits_per_byte_on_training_files:.3f} |
| token unigram, bits per byte | {bits_per_byte_unigram:.3f} |
| token bigram, bits per byte | {bits_per_byte_bigram:.3f} |
| model with the SAE's reconstruction spliced in, bits per byte | {bits_per_byte_with_sae:.3f} |
| SAE, variance explained | **{variance_explained:.4f}** |
| same, on the training files | {variance_explained_on_training_files:.4f} |
| same, held out, activations from the model in bfloat16 | {variance_explained_with_bfloat16_model:.4f} |
| mean L0 (latents that fire at a position) | **{mean_l0:.2f}** |
| dead latents: never fire in one pass over all files, training and held out | **{dead_fraction:.2%}** |
| latents that never fire on the held-out files | {silent_fraction_on_held_out:.2%} |
| positions at which the most frequent latent fires | {highest_frequency:.1%} |

*Bits per byte*: cross-entropy of all tokens in the held-out samples, in bits, over the files' UTF-8 bytes.
Every token is predicted once, from BOS and the tokens before it in its sample. The baselines predict the same
tokens of the same samples from counts on the training files: the unigram add-one smoothed; the bigram sees
the token before (or BOS) and is Witten-Bell smoothed with the unigram, which leaves nothing to tune.

*Variance explained*: 1 - sum |x - reconstruction|² / sum |x - mean|² over the {positions:,} text tokens.

Rounding: bits per byte {language_model_rounding}; variance explained {sae_rounding}; the better one is saved.

## Limits

- It has read nothing but Python, and no sample longer than {sample_length} tokens, though the rotary
  embedding is declared for {context_length}.
- The held-out files have relatives among the training files (the character maps of `encodings`, the modules
  of one package), so the figures tell of this library's style rather than of Python code in general.
- Many latents stand for one token, rarer tokens often share a latent, and the few latents that fire at a
  large part of all positions mean little by themselves.
- A passage can come back verbatim. The text is under the Python Software Foundation License Version 2, ©
  Python Software Foundation: keep its notice where you publish such a passage.
"""


def render_card(card: dict[str, Any]) -> str:
    """The model card of what train.py measured."""
    language_model, sae, text, seconds = (card[part] for part in ("language_model", "sae", "text", "seconds"))
    settings = language_model["settings"]
    fields = {
        **settings,
        **{f"sae_{name}": value for name, value in sae["settings"].items()},
        **language_model,
        **sae,
        "d_sae": sae["settings"]["d_sae"],
        "k": sae["settings"]["k"],
        "language_model_dtype": language_model["dtype"],
        "sae_dtype": sae["dtype"],
        "language_model_rounding": _rounding(language_model["bits_per_byte_by_dtype"], 5),
        "sae_rounding": _rounding(sae["variance_explained_by_dtype"], 6),
        **_text_fields(text),
        "piece_length": settings["sample_length"] - 1,
        "megabytes": sum(card["file_bytes"].values()) / 1e6,
        "command": card["command"],
        "hardware": card["hardware"],
        "versions": ", ".join(f"{name} {version}" for name, version in card["versions"].items()),
        "tokenizer_seconds": seconds["tokenizer"],
        "language_model_seconds": seconds["language_model"],
        "sae_seconds": seconds["sae"],
        "quality_seconds": seconds["language_model_quality"] + seconds["sae_quality"],
    }
    return TEMPLATE.format_map(fields)


def _text_fields(text: dict[str, Any]) -> dict[str, Any]:
    training, held_out = text["training"], text["held_out"]
    return {
        "python_version": text["python_version"],
        "sha256": text["sha256"],
        "file_count": training["files"] + held_out["files"],
        "byte_count": training["bytes"] + held_out["bytes"],
        **{f"training_{name}": value for name, value in training.items()},
        **{f"held_out_{name}": value for name, value in held_out.items()},
    }


def _rounding(figures: dict[str, float], digits: int) -> str:
    return ", ".join(f"{figure:.{digits}f} in {dtype}" for dtype, figure in figures.items())
