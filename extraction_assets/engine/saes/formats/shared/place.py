"""Where the checkpoint of one SAE lies on this machine, and what is known of it beside its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from extraction_assets.engine.file_boundary import DecoderPart
from extraction_assets.engine.saes.published import PublishedSae


class FormatFiles(NamedTuple):
    """Names of the files of one SAE in a format, relative to ``SaePlace.folder``."""

    required: tuple[str, ...] = ()
    """Without them it is no checkpoint of the format."""
    optional: tuple[str, ...] = ()
    """They decide what the SAE computes where they are there."""


@dataclass(frozen=True)
class SaePlace:
    """One SAE: a folder with its files, or one file among those of other SAEs."""

    folder: Path
    """The folder with its files."""
    file: str | None = None
    """The name of its file there, where several SAEs share the folder."""
    repository: str | None = None
    """Id of the hub repository that it is from, if that is known."""
    inside: str = ""
    """The folder or file in that repository."""
    published: PublishedSae | None = None
    """What the registry says of it."""
    commit: str | None = None
    """The commit of the repository, where it was downloaded."""
    part: DecoderPart | None = None
    """The features that are read; None for all."""

    def latent_dim(self, read: int) -> int:
        """F, if so many features were read."""
        return read if self.part is None else self.part.of

    @property
    def parts(self) -> tuple[str, ...]:
        """The names on the way to it, outermost first: of repository, folders and file. Some formats write into names
        what their files do not say."""
        if self.repository is None:
            return (*self.folder.absolute().parts, *([] if self.file is None else [self.file]))
        return (*self.repository.split("/"), *PurePosixPath(self.inside).parts)

    @property
    def published_scale(self) -> float | None:
        """What inputs are multiplied by, as the registry says, for an SAE whose files do not."""
        return None if self.published is None else self.published.norm_scaling_factor

    def __str__(self) -> str:
        """As messages name it."""
        return str(self.folder if self.file is None else self.folder / self.file)


def place_of(path: Path) -> SaePlace:
    """The SAE at a folder or file of this machine of which nothing else is known."""
    return SaePlace(path.parent, path.name) if path.is_file() else SaePlace(path)
