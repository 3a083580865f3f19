"""delphi's cache of activations, as ``LatentCache`` of eai-delphi 0.1.3 writes it, from stored SAE features.

The strongest examples alone would not do: delphi takes every sample that is not in its cache for one in which the
feature is silent.
"""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import sqlalchemy as sa

from extraction_assets.catalog import SAE_FEATURES
from extraction_assets.database.tables import features
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.formats.shared.delphi_cache import (
    LARGEST,
    Firings,
    TooLargeError,
    equal_ranges,
    firings_of,
    ranges,
    write_cache_file,
)
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import ExportSource
from extraction_assets.planning.stored_result import (
    MergedResult,
    NotStoredError,
    StoredFeatures,
    find_stored_features,
)

WHAT = (
    "`HOOK/START_END.safetensors`, END included: `locations` (sample, position, latent less START), `activations` as "
    "float16 and `tokens`, and `HOOK/config.json`. Several SAEs may share a folder."
)
READ_BY = "delphi's `LatentDataset(FOLDER, …)`, which explains and scores features"
VERSION = 2
NEEDS = (SAE_FEATURES,)
SEVERAL_SAES = True
OPTIONS: Mapping[str, Option] = {
    "module": Option("", "name of the folder, for delphi that of the module; by default the hook"),
    "splits": Option("", "how many files; by default one for every 24 million activations, of 65,536 features at most"),
}

_FIRINGS_IN_FILE = 24_000_000  # up to 340 MB
_SMALL_NUMBERS = 2**16  # of uint16: a file of more features would take twice as much room for locations
_SAMPLES_AT_ONCE = 10_000
_BATCH_SIZE = 32  # of delphi's own runs; nothing of the files depends on it


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """The folder of an SAE. Raises ExportError for a name that is no folder's."""
    name = options["module"] or source.extraction.hook.replace("/", "-")
    if name in ("", ".", "..") or "/" in name or "\0" in name or name.startswith("."):
        raise ExportError(f"module {name!r} cannot be the name of a folder: give another one by --option module=NAME")
    return name


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``: the SAE features are stored, samples are full, and float16 holds every activation."""
    stored = _stored(source)
    _ranges(_counts(source)[0], options["splits"])
    _require_full_samples(source, stored)


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    stored = _stored(source)
    counts, chosen = _counts(source)
    files = _ranges(counts, options["splits"])
    folder = inside(source, options)
    for one in files:
        name, wanted = f"{folder}/{one.start}_{one.stop - 1}.safetensors", int(chosen[one.start : one.stop].sum())
        if not out.has(name, wanted):
            _write_file(source, stored, out, name, one, chosen)
            out.advance(wanted)
    out.write_text(f"{folder}/config.json", json.dumps(_config(source, stored, len(files)), indent=4))


def _stored(source: ExportSource) -> StoredFeatures:
    extraction = source.extraction
    if source.declared is None:
        raise ExportError(
            f"delphi reads every activation of a feature, not its strongest examples: it is exported from the stored "
            f"{SAE_FEATURES} of {source.title}, which this project does not declare"
        )
    result = MergedResult(extraction.name, extraction.sae, extraction.settings, extraction.fingerprint)
    try:
        stored = find_stored_features(source.declared.store, result)
    except NotStoredError as error:
        raise ExportError(
            f"delphi reads every activation of a feature, not its strongest examples, and {error}"
        ) from error
    if stored.settings.corpus.exclude_outlier_norms is not None:
        raise ExportError(
            f"{source.title} leaves out positions by their norm (exclude_outlier_norms), and which ones these are is "
            f"not stored with its {SAE_FEATURES}: export an extraction without that setting to delphi"
        )
    return stored


def _counts(source: ExportSource) -> tuple[np.ndarray, np.ndarray]:
    """Firings int64 [F] of each feature that is exported, 0 of others, and which these are: bool [F].

    Raises ExportError if the maximum of one is more than float16 holds.
    """
    size = source.extraction.latent_dim
    counts, chosen = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=bool)
    chosen[list(source.neuron_indices)] = True
    c = features.c
    query = sa.select(c.neuron_index, c.token_count, c.max_activation).where(c.extraction_id == source.extraction.id)
    for neuron_index, token_count, maximum in source.connection.execute(query):
        counts[neuron_index] = token_count if chosen[neuron_index] else 0
        if chosen[neuron_index] and maximum is not None and maximum > LARGEST:
            raise _too_large(source, TooLargeError(neuron_index, maximum))
    return counts, chosen


def _too_large(source: ExportSource, error: TooLargeError) -> ExportError:
    return ExportError(
        f"{error} in {source.title}, and delphi keeps activations as float16, of at most {LARGEST:,.0f}: leave it out "
        "by --features"
    )


def _ranges(counts: np.ndarray, splits: str) -> list[range]:
    """The features of each file. Raises ExportError."""
    if not splits:
        return ranges(counts, _FIRINGS_IN_FILE, _SMALL_NUMBERS)
    if not (splits.isascii() and splits.isdigit() and 1 <= int(splits) <= len(counts)):
        raise ExportError(f"splits is {splits!r}, not a number of files from 1 to {len(counts)}")
    return equal_ranges(len(counts), int(splits))


def _require_full_samples(source: ExportSource, stored: StoredFeatures) -> None:
    """Raises ExportError where other samples than the last one hold padding, which delphi would take for text."""
    mask = stored.corpus.arrays.attention_mask
    for first in range(0, stored.settings.evaluation_samples, _SAMPLES_AT_ONCE):
        stop = min(first + _SAMPLES_AT_ONCE, stored.settings.evaluation_samples - 1)
        short = np.flatnonzero(~mask[first:stop].all(axis=1))
        if len(short):
            sample = stored.settings.start_sample + first + int(short[0])
            raise ExportError(
                f"delphi reads full samples alone, and sample {sample} of {source.title} ends before position "
                f"{mask.shape[1]:,}: set packing: concatenated in its corpus, and run it again"
            )


def _write_file(
    source: ExportSource, stored: StoredFeatures, out: Output, name: str, one: range, chosen: np.ndarray
) -> None:
    tokens = stored.corpus.arrays.token_ids[: stored.settings.evaluation_samples]
    samples, positions = tokens.shape
    fits = max(samples, positions, len(one)) <= _SMALL_NUMBERS
    dtype = np.dtype(np.uint16 if fits else np.uint32)
    try:
        parts = list(_firings(stored, one, chosen, dtype))
    except TooLargeError as error:
        raise _too_large(source, error) from error

    def pieces() -> Iterator[np.ndarray]:
        for first in range(0, samples, _SAMPLES_AT_ONCE):
            yield tokens[first : first + _SAMPLES_AT_ONCE]

    with out.file(name) as path:
        write_cache_file(path, parts, dtype, pieces, [samples, positions])


def _firings(stored: StoredFeatures, one: range, chosen: np.ndarray, dtype: np.dtype) -> Iterator[Firings]:
    """What some features do in each chunk; only the chunk at hand is in memory, beside what it gives."""
    for chunk in stored.settings.chunks:
        counted = stored.samples(chunk).counted.numpy()
        yield from firings_of(stored.read(chunk), counted, chunk.first_row, one, chosen, dtype)


def _config(source: ExportSource, stored: StoredFeatures, files: int) -> dict[str, str | int]:
    """``CacheConfig`` of delphi, and the model's name, by which it finds the tokenizer."""
    settings = stored.settings
    samples, length = settings.evaluation_samples, stored.corpus.arrays.token_ids.shape[1]
    return {
        "dataset_repo": settings.corpus.source,
        "dataset_split": settings.corpus.split or "train",
        "dataset_name": settings.corpus.configuration or "",
        "dataset_column": settings.corpus.text_column,
        "batch_size": _BATCH_SIZE,
        "cache_ctx_len": length,
        "n_tokens": samples * length,
        "n_splits": files,
        "model_name": settings.language_model.path,
    }
