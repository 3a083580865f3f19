"""Which checkpoint is meant: as settings name it, before it is looked for on this machine or the hub."""

from typing import NamedTuple


class CheckpointReference(NamedTuple):
    """The checkpoint of a language model; ``resolve_checkpoint`` of the engine finds its local folder."""

    path: str
    """A folder, or the id of a repository on the hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the checkpoint may run."""


class SaeReference(NamedTuple):
    """The checkpoint of an SAE; ``sae_folder`` of the engine finds its local folder."""

    path: str
    """A folder, or the id of a repository on the hub."""
    subfolder: str | None = None
    """Folder of this SAE inside ``path``."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository."""
