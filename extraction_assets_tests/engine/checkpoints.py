"""Folders of language models as the engine takes them."""

from pathlib import Path

from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, resolve_checkpoint
from extraction_assets.settings import CheckpointReference


def local(folder: str | Path, *, trust_remote_code: bool = False) -> LocalCheckpoint:
    """The checkpoint in a folder, whose files are looked at as for a user."""
    return resolve_checkpoint(CheckpointReference(str(folder), trust_remote_code=trust_remote_code))
