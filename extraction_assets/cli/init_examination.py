"""What ``init`` finds out before it writes a file: whether hooks exist, and how many samples there are."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import click

from extraction_assets.settings import (
    STANDARD_LIBRARY,
    CheckpointReference,
    CorpusSettings,
    ExtractionSettings,
    is_hub_id,
)

_TEXT_LENGTH = 128
_CHAT_LENGTH = 1024
"""Chats are not read on from any place: their later samples begin in the middle of a message."""
_SHUFFLED_BYTES = 10 << 30
"""Larger files are not shuffled by default: all of them are read before the first sample."""
_SECONDS = 120.0
"""Counting ends after about so long."""


def usual_length(model: str, corpus: CorpusSettings) -> int:
    """128 positions, 1024 for chats, or as many as a local model takes if these are fewer, found as ``check`` finds
    it."""
    folder, usual = Path(model).expanduser(), _TEXT_LENGTH if corpus.messages_column is None else _CHAT_LENGTH
    if not folder.is_dir():
        return usual
    if not (folder / "config.json").is_file():
        raise click.ClickException(f"--model {model}: the folder holds no config.json, so it is no Hugging Face model")
    from extraction_assets.engine.models.files.local_checkpoint import UntrustedCodeError, resolve_checkpoint
    from extraction_assets.engine.models.positions import usual_positions

    try:
        return usual_positions(resolve_checkpoint(CheckpointReference(str(folder))), usual)
    except UntrustedCodeError:
        return usual


def refuse_unknown_hooks(settings: ExtractionSettings) -> Iterator[str]:
    """One error for a hook that the model does not have, by its configuration alone; yields why others were not
    looked at."""
    model = settings.language_model.path
    if not settings.declared_hooks:
        return  # those that checkpoints on the hub record
    if not Path(model).is_dir():
        yield f"whether the hooks exist is not known: {model} is on the hub, which init does not ask (check does)"
        return
    from extraction_assets.engine.models.files.local_checkpoint import resolve_checkpoint
    from extraction_assets.engine.models.language_model import HookError, probe_hooks

    try:
        probe_hooks(resolve_checkpoint(settings.language_model.checkpoint), settings.declared_hooks)
    except HookError as error:
        raise click.ClickException(str(error)) from error
    except Exception as error:  # code that is not trusted, weights that are not there yet, …
        yield f"whether the hooks exist is not known: {_line(error)}"


def shuffled(corpus: CorpusSettings) -> CorpusSettings:
    """The corpus with a seed, where its documents can be read in another order and are not mixed already.

    Raises CorpusError if the source cannot be read.
    """
    if corpus.source == STANDARD_LIBRARY:
        return corpus
    if not is_hub_id(corpus.source):
        from extraction_assets.engine.corpora.kinds import compression
        from extraction_assets.planning.corpus_source import open_source

        files = open_source(corpus).files
        size = sum(path.stat().st_size for path in files)
        if size > _SHUFFLED_BYTES or any(compression(path) for path in files):
            return corpus
    return corpus.model_copy(update={"shuffle_seed": 0})


def with_chat_column(corpus: CorpusSettings) -> CorpusSettings:
    """The corpus with the column of chats that its first row holds, if no column is named and it holds no text.

    Of the hub nothing is looked at.
    """
    named = corpus.text_column != "text" or corpus.token_column or corpus.messages_column
    if named or corpus.source == STANDARD_LIBRARY or is_hub_id(corpus.source):
        return corpus
    from extraction_assets.engine.corpora.documents import CorpusError
    from extraction_assets.engine.corpora.messages import CHAT_COLUMNS
    from extraction_assets.planning.corpus_source import open_source

    for chosen in (corpus, *(corpus.model_copy(update={"messages_column": name}) for name in CHAT_COLUMNS)):
        with contextlib.suppress(CorpusError):
            next(open_source(chosen).documents(), None)
            return chosen
    return corpus


def samples_there_are(settings: ExtractionSettings) -> tuple[int, str]:
    """Samples that the corpus holds, at most ``evaluation_samples``, and what is to be said of them.

    Nothing is counted if the model or the corpus is not on this machine. Raises CorpusError if there are no samples.
    """
    model, requested = settings.language_model.path, settings.evaluation_samples
    for what, there in ((model, Path(model).is_dir()), (settings.corpus.source, not is_hub_id(settings.corpus.source))):
        if not there:
            return requested, f"not counted, as {what} is on the hub (check counts)"
    from extraction_assets.early_checks.document_share import cut_chats
    from extraction_assets.early_checks.sample_count import count_corpus
    from extraction_assets.engine.corpora.documents import CorpusError
    from extraction_assets.engine.models.files.local_checkpoint import UntrustedCodeError, resolve_checkpoint

    os.environ.setdefault("EXTRACTION_PROGRESS", "bar")
    try:
        checkpoint = resolve_checkpoint(settings.language_model.checkpoint)
        share = count_corpus(settings, checkpoint, logging.getLogger(__name__), _SECONDS)
    except (FileNotFoundError, UntrustedCodeError) as error:  # the corpus may still hold tokens
        return requested, f"not counted: {_line(error)}"
    found = share.counted.samples
    if not found:
        raise CorpusError(f"corpus source {settings.corpus.source!r} holds no text")
    cut = "".join(f"; {finding.message}" for finding in cut_chats(settings, share))
    if found == requested:
        return requested, share.sentence + cut
    more = "there are no more" if share.counted.ended else f"counted in {_SECONDS:g} s, there are more"
    return found, f"{share.sentence} ({more}){cut}"


@contextlib.contextmanager
def one_sentence_of(option: str) -> Iterator[None]:
    """Errors of the block as one error of the command, which begins with the option at fault."""
    try:
        yield
    except click.ClickException:
        raise
    except (ValueError, OSError) as error:
        raise click.ClickException(f"{option}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
