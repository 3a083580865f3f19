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
    """The checkpoint of an SAE; ``sae_place`` of the engine finds it on this machine."""

    path: str | None = None
    """A folder, or the id of a repository on the hub; None where release and id say it."""
    subfolder: str | None = None
    """Folder or file of this SAE inside ``path``."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository."""
    release: str | None = None
    """SAELens's name of a group of SAEs."""
    sae_id: str | None = None
    """SAELens's name of one SAE in ``release``."""

    def __str__(self) -> str:
        """As messages name it."""
        return str(self.path) if self.release is None else f"{self.release}/{self.sae_id}"
