"""The early checks of an extraction on their own: its parts, one batch through it, and the disk. Stores nothing."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from extraction_assets.early_checks.batch import (
    Batch,
    batch_size,
    examine_saes,
    first_batch,
    first_or_special,
    model_outputs,
)
from extraction_assets.early_checks.document_share import DocumentShare
from extraction_assets.early_checks.sample_count import examine_samples
from extraction_assets.engine.corpora.message_spans import SampleMessages
from extraction_assets.engine.corpora.samples import samples_of
from extraction_assets.engine.corpora.tokenize import packing_of, tokenize_corpus
from extraction_assets.engine.findings import Finding, refuse
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.language_model import load_language_model, vocabulary_size
from extraction_assets.engine.models.padding_check import examine_alone
from extraction_assets.engine.models.tokenizers.comparison import noting_texts
from extraction_assets.engine.preflight.compatibility import examine_combination, examine_vocabulary
from extraction_assets.engine.preflight.sanity import SaeSanity
from extraction_assets.engine.saes.resolved import examine_recorded, resolve_extraction
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.execution.failures import USER_ERRORS
from extraction_assets.host.disk import unwritable
from extraction_assets.planning.corpus_source import open_source
from extraction_assets.planning.disk_estimate import (
    Estimate,
    NotEnoughDiskError,
    Sizes,
    disk_findings,
    estimate_database,
    estimate_files,
    same_disk,
    samples_to_come,
)
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.planning.tokenization import load_tokenizer, tokenizer_findings
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.sealed import DamagedFileError


class Machine(NamedTuple):
    """Where the batch is computed, and where results go."""

    device: torch.device
    matmul_precision: str
    store: ChunkStore
    database: Path | None
    """Folder of the SQLite file; None for a database on a server."""


class Examination:
    """What the early checks have found so far; a part is absent where an error came before it."""

    def __init__(self) -> None:
        self.model = ""
        """Class of the model, and the dtype in which it ran."""
        self.corpus: DocumentShare | None = None
        """How many samples there are, as far as that was counted, and how many documents they come from."""
        self.samples = ""
        """What the batch is."""
        self.roles: dict[str, int] = {}
        """How many of its tokens stand in messages of each role, if the corpus holds chats."""
        self.widths: dict[str, int] = {}
        """D of every hook."""
        self.hooks: dict[str, str] = {}
        """What each SAE reads, and what a transcoder gives."""
        self.saes: dict[str, SAE] = {}
        self.sanity: dict[str, SaeSanity] = {}
        self.estimates: list[Estimate] = []
        """What is still to be written to the chunk store, and to the results database."""
        self.findings: list[Finding] = []

    @property
    def fails(self) -> bool:
        """Whether a run would fail on what was found."""
        return any(finding.severity == "error" for finding in self.findings)


def examine_extraction(settings: ExtractionSettings, machine: Machine, logger: logging.Logger) -> Examination:
    """What a run of the extraction would find before its first chunk. Stores nothing.

    The batch is that of the first chunk where the corpus is there; else a few samples are tokenized in memory.
    """
    found = Examination()
    try:
        for _ in _examine(found, settings, machine, logger):
            if found.fails:
                break
    except USER_ERRORS as error:
        found.findings.append(Finding("error", str(error)))
    return found


def _examine(
    found: Examination, settings: ExtractionSettings, machine: Machine, logger: logging.Logger
) -> Iterator[None]:
    """Adds to ``found`` part by part; stops after a part with an error."""
    extraction = resolve_extraction(settings)
    checkpoint, saes = extraction.checkpoint, extraction.saes
    found.hooks = {name: " -> ".join(sae.hooks) for name, sae in saes.items()}
    combination = examine_combination(checkpoint, saes, settings.corpus.max_length, machine.device)
    found.saes, found.widths, found.findings = combination.saes, combination.widths, combination.findings
    found.findings += examine_recorded(extraction, saes)
    yield
    found.corpus, more = examine_samples(settings, checkpoint, machine.store, logger)
    found.findings += more
    yield
    batch, found.samples = _batch(found, settings, machine.store, checkpoint)
    yield
    dtype = settings.language_model.dtype
    model = load_language_model(checkpoint, extraction.hooks, device=machine.device, dtype=dtype)
    found.model = f"{type(model.module).__name__}, {str(model.dtype).removeprefix('torch.')} on {machine.device}"
    found.findings += model.weight_findings()
    outputs = model_outputs(model, batch.samples, logger)
    found.findings += examine_alone(model, batch.samples, outputs)
    yield
    examined = examine_saes(extraction, found.saes, outputs, batch, model, machine.matmul_precision, logger)
    found.sanity = examined.saes
    found.findings += examined.findings
    latent_dims, mean_l0 = _numbers(found.saes, found.sanity)
    sizes = Sizes(found.widths, latent_dims, model.dtype.itemsize, mean_l0)
    found.estimates = list(_disk(found, settings, machine, sizes))


def _numbers(saes: Mapping[str, SAE], sanity: Mapping[str, SaeSanity]) -> tuple[dict[str, int], dict[str, float]]:
    latent_dims = {name: sae.latent_dim for name, sae in saes.items()}
    return latent_dims, {name: seen.mean_l0 for name, seen in sanity.items() if seen.tokens}


def _batch(
    found: Examination, settings: ExtractionSettings, store: ChunkStore, checkpoint: LocalCheckpoint
) -> tuple[Batch, str]:
    """The samples to try the SAEs on, and where they come from."""
    model, tokenizer = settings.language_model, load_tokenizer(settings, checkpoint)
    rows = vocabulary_size(checkpoint)
    if tokenizer is not None and settings.corpus.token_column is None:
        unknown = examine_vocabulary(tokenizer, rows, model.path)
        # A warning would be repeated for each text.
        refuse([finding for finding in unknown if finding.severity == "error"])
        found.findings += unknown
    try:
        plan = ExtractionPlan(settings, store)
    except ValueError as error:  # the corpus is not there, or was made from other settings, or is damaged
        if isinstance(error, DamagedFileError):
            found.findings.append(Finding("warning", str(error)))
        count = min(batch_size(settings.corpus.max_length), settings.evaluation_samples)
        texts: list[str] = []
        batch, messages = _tokenized(settings, tokenizer, rows, count, texts)
        found.roles = {} if messages is None else messages.tokens_of_roles(0, count)
        found.findings += tokenizer_findings(settings.corpus, checkpoint, tokenizer, texts)
        return batch, "of one batch of the source"
    batch, messages = first_batch(plan, settings.chunks[0]), plan.corpus.arrays.messages
    found.roles = {} if messages is None else messages.tokens_of_roles(0, len(batch.samples.token_ids))
    found.findings += tokenizer_findings(settings.corpus, checkpoint, tokenizer, _decoded(batch, tokenizer))
    return batch, "of one batch of the corpus"


def _decoded(batch: Batch, tokenizer: Any | None) -> Iterator[str]:
    """The text of a batch's samples, as far as the tokenizer gives it back."""
    for ids, mask in zip(batch.samples.token_ids, batch.samples.attention_mask, strict=True):
        yield "" if tokenizer is None else tokenizer.decode(ids[mask].tolist(), skip_special_tokens=True)


def _tokenized(
    settings: ExtractionSettings, tokenizer: object, vocabulary: int | None, count: int, texts: list[str]
) -> tuple[Batch, SampleMessages | None]:
    """The first samples of the source, whatever ``start_sample`` is, and who speaks in them; notes the ``texts`` that
    were read."""
    corpus = settings.corpus
    documents, packing = noting_texts(open_source(corpus).documents(), texts), packing_of(corpus)
    arrays = tokenize_corpus(documents, tokenizer, packing, count, vocabulary_size=vocabulary)
    samples = samples_of(arrays, slice(0, count), 0, corpus)
    return Batch(samples, first_or_special(arrays.special_tokens_mask)), arrays.messages


def _disk(found: Examination, settings: ExtractionSettings, machine: Machine, sizes: Sizes) -> Iterator[Estimate]:
    """What is to be written; adds a finding for each disk where it does not fit.

    `run NAME` writes the files that `keep` does not keep; `run NAME --missing` does not.
    """
    store, to_come = machine.store, samples_to_come(settings, machine.store)
    disk = store.files.disk
    for folder in dict.fromkeys([store.root, machine.database or store.root]):
        if (why := unwritable(folder)) is not None:  # a run writes there, even if it only records events
            found.findings.append(Finding("error", f"a run cannot write to {folder}: {why}", NotEnoughDiskError))
    files = estimate_files(settings, store, sizes, to_come)
    rows = estimate_database(settings, sizes, to_come)
    yield from [*files, *rows]
    beside = machine.database is not None and disk is not None and same_disk(machine.database, disk)
    too_much = disk_findings([*files, *(rows if beside else [])], disk, settings.name)
    if too_much:
        kept = [one for one in files if getattr(settings.keep, one.asset)]
        if len(kept) < len(files) and not disk_findings([*kept, *(rows if beside else [])], disk, settings.name):
            sentence = f"what keep says is to be kept does fit: `run {settings.name} --missing` writes nothing else"
            too_much = [Finding("warning", f"{too_much[0].message}; {sentence}")]
    found.findings += too_much
    if machine.database is not None and not beside:
        found.findings += disk_findings(rows, machine.database, settings.name)
