"""The stored SAE features that a merged result was made from, found by fingerprints alone: neither model nor SAE has to
be there.

The fingerprint of a merge covers those of its tables, and that of a table those of its features and of the positions
that count. So files whose fingerprints give that of the merge are the ones.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from extraction_assets.catalog import FEATURE_EXAMPLES, SAE_FEATURES, TOP_K_TABLE, asset_row
from extraction_assets.engine.shapes import FeatureRows, Samples
from extraction_assets.planning.asset_fields import values_in_fingerprint
from extraction_assets.settings import Chunk, ExtractionSettings
from extraction_assets.stores.chunk_names import ChunkFile
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.corpus_files import StoredCorpus
from extraction_assets.stores.fingerprints import fingerprint
from extraction_assets.stores.sealed import damaged

_MOST_TRIED = 1_000
"""Choices of files that are tried where chunks have files of several fingerprints."""


class NotStoredError(LookupError):
    """The SAE features of a result are not in the store; the message says why, and what to do."""


class MergedResult(NamedTuple):
    """What the results database says of an (extraction, SAE)."""

    name: str
    sae: str
    settings: Mapping[str, Any]
    fingerprint: str
    """Of the merge."""


class StoredFeatures(NamedTuple):
    """The SAE features of a result, chunk by chunk."""

    settings: ExtractionSettings
    corpus: StoredCorpus
    files: Sequence[ChunkFile]
    """One for each chunk of the settings."""
    store: ChunkStore

    def samples(self, chunk: Chunk) -> Samples:
        """The samples of a chunk."""
        return self.corpus.samples(chunk.rows, self.settings.corpus)

    def read(self, chunk: Chunk) -> FeatureRows:
        """The features of a chunk, memory-mapped, after checking the file. Raises DamagedFileError or
        FileNotFoundError."""
        from extraction_assets.stores.chunk_files import read_features  # torch

        file = self.files[self.settings.chunks.index(chunk)]
        with self.store.reading(file.path) as path:
            found, _ = read_features(path, file.fingerprint)
            if found.num_samples != chunk.num_samples:
                raise damaged(path, f"it holds {found.num_samples} samples, but its chunk {chunk.num_samples}")
        return found


def find_stored_features(store: ChunkStore, result: MergedResult) -> StoredFeatures:
    """The files that a result was made from. Raises NotStoredError, DamagedFileError of the corpus."""
    try:
        settings = ExtractionSettings.model_validate(dict(result.settings))
    except ValueError as error:
        raise NotStoredError(
            f"the SAE features of {result.name}/{result.sae} cannot be found, for its settings are those of another "
            f"version of this package: {error}"
        ) from error
    current = store.current_corpus(result.name)
    if current is None or len(current.corpus) < settings.evaluation_samples:
        raise _not_stored(store, result, "its corpus is not in the store")
    options = _candidates(store, result, settings)
    missing = [chunk.key for chunk, found in zip(settings.chunks, options, strict=True) if not found]
    if missing:
        raise _not_stored(store, result, f"{len(missing)} of {len(options)} chunks have no file, such as {missing[0]}")
    for chosen in _choices(options):
        fingerprints = [file.fingerprint for file in chosen]
        if fingerprint_of_merge(settings, result.sae, current.corpus, fingerprints) == result.fingerprint:
            return StoredFeatures(settings, current.corpus, chosen, store)
    raise _not_stored(store, result, "what is stored was made from other inputs or settings than this result")


def _candidates(store: ChunkStore, result: MergedResult, settings: ExtractionSettings) -> list[list[ChunkFile]]:
    """The feature files of each chunk, of any fingerprint, the newest first."""
    by_key: dict[str, list[ChunkFile]] = {}
    for file in store.chunk_files(result.name, SAE_FEATURES, result.sae):
        by_key.setdefault(file.key, []).append(file)
    return [_newest_first(store, by_key.get(key, [])) for key in settings.chunk_keys]


def _newest_first(store: ChunkStore, files: list[ChunkFile]) -> list[ChunkFile]:
    if len(files) < 2:
        return files
    return sorted(files, key=lambda file: store.changed_at(file.path), reverse=True)


def _choices(options: Sequence[Sequence[ChunkFile]]) -> Iterator[list[ChunkFile]]:
    """One file of each chunk: those of the same age first, then some of all."""
    for age in range(max(map(len, options))):
        yield [found[min(age, len(found) - 1)] for found in options]
    yield from map(list, itertools.islice(itertools.product(*options), _MOST_TRIED))


def fingerprint_of_merge(settings: ExtractionSettings, sae: str, corpus: StoredCorpus, features: Sequence[str]) -> str:
    """As ``ExtractionPlan.merge_fingerprint``, from the fingerprints of each chunk's SAE features."""
    table, merge, chosen = asset_row(TOP_K_TABLE), asset_row(FEATURE_EXAMPLES), settings.saes[sae]
    values = values_in_fingerprint(table, settings, chosen)
    tables = [
        fingerprint(
            table.name,
            features=found,
            first_sample=chunk.first_sample,
            counted=corpus.counted_fingerprint(chunk.rows, settings.corpus),
            **values,
        )
        for chunk, found in zip(settings.chunks, features, strict=True)
    ]
    return fingerprint(merge.name, tables=tables, **values_in_fingerprint(merge, settings, chosen))


def _not_stored(store: ChunkStore, result: MergedResult, why: str) -> NotStoredError:
    name = f"{result.name}/{result.sae}"
    return NotStoredError(
        f"the SAE features of {name} are not stored in {store.place}: {why}; keep {SAE_FEATURES} and materialize "
        f"{name}/{SAE_FEATURES}, or name the folder that holds its files"
    )
