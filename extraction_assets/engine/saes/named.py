"""Which published SAE the settings mean; what no name of the registry means is refused before anything is read."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from extraction_assets.engine.saes.formats import CheckpointError, files_on_hub, unreadable
from extraction_assets.engine.saes.published import (
    PublishedSae,
    UnknownSae,
    all_saes,
    published_at,
    published_sae,
    registry,
)
from extraction_assets.settings import SaeReference


def is_local(path: str) -> bool:
    """Whether a path is one of this machine, not the id of a repository on the hub."""
    root = Path(path).expanduser()
    return root.exists() or root.is_absolute() or path.startswith((".", "~"))


def named_sae(sae: SaeReference) -> PublishedSae | None:
    """What the registry says of an SAE, by its release and id or by its place on the hub; None if it is not there.

    Looks at no file and asks no hub. Raises UnknownSae, with near names, for a name that SAELens does not have, and
    CheckpointError for an SAE that cannot be read.
    """
    published = _by_name(sae)
    if published is not None:
        _refuse_other_repository(sae, published)
        refuse_unreadable(published)
    return published


def _refuse_other_repository(sae: SaeReference, published: PublishedSae) -> None:
    """Raises UnknownSae where ``path`` is a repository of the registry, but not that of the release: it has SAEs in
    folders of the same names."""
    path = (sae.path or published.repository).lower()  # ids of the hub are equal in any case
    others = {one.repository.lower() for one in registry().releases.values()} - {published.repository.lower()}
    if path in others:
        raise UnknownSae(
            f"path {sae.path} is another repository than that of {sae}, {published.repository}: leave out path, or "
            "name a release of it"
        )


def refuse_unreadable(published: PublishedSae) -> None:
    """Raises CheckpointError, with the reason, for an SAE of a kind that cannot be read."""
    if why := unreadable(published.loader):
        name = f"{published.release}/{published.sae_id}"
        raise CheckpointError(f"SAE {name}: this kind of SAE cannot be read: {why}")


def named_copy(folder: Path) -> PublishedSae | None:
    """The SAE that a folder or file is by its name, where it lies in a folder that is called after the repository."""
    repository, inside = _copied(folder)
    return published_at(repository, inside) if repository and inside else None


def is_copy_of_many(folder: Path) -> PublishedSae | None:
    """The first SAE of the repository that a folder is a copy of by its name, and that has it in a folder below."""
    repository, inside = _copied(folder)
    if not repository or inside:
        return None
    there = (one for one in all_saes() if one.repository == repository and (folder / one.path).exists())
    return next(there, None)


def one_of_many(repository: str, inside: str = "") -> PublishedSae | None:
    """The first SAE of the registry in a folder below ``inside`` of a hub repository; None if the registry has none
    there, or has ``inside`` itself."""
    there = [one.path for one in all_saes() if one.repository == repository]
    below = next((path for path in there if path.startswith(f"{inside}/" if inside else "") and path != inside), None)
    return None if below is None or inside in there else published_at(repository, below)


def repository_in_name(folder: Path) -> str | None:
    """The repository of the registry that a folder, or one above it, is called after, as a copy of it often is."""
    return _copied(folder)[0] or None


def _copied(folder: Path) -> tuple[str, str]:
    """The repository that a folder or one above it is called after, and the rest of its path; empty if none."""
    called = {one.repository.rpartition("/")[2]: one.repository for one in registry().releases.values()}
    in_cache = {"models--" + one.replace("/", "--"): one for one in called.values()}
    names = folder.absolute().parts
    for number in reversed(range(len(names))):
        if names[number] in called:
            return called[names[number]], "/".join(names[number + 1 :])
        if names[number] in in_cache:  # and below it snapshots/COMMIT
            return in_cache[names[number]], "/".join(names[number + 3 :])
    return "", ""


def _by_name(sae: SaeReference) -> PublishedSae | None:
    if sae.release is not None:
        if is_local(sae.release) and sae.release not in registry().releases:
            raise UnknownSae(f"release {sae.release!r} is a folder: release is a name of SAELens, path a folder")
        return published_sae(sae.release, sae.sae_id or "")
    path = sae.path or ""
    if is_local(path):
        return None
    first, _, rest = path.partition("/")
    if first in registry().releases:
        sae_id = rest or sae.subfolder or next(iter(registry().releases[first].saes))
        raise UnknownSae(
            f"path {path!r} is no folder, but {first} is a release of SAELens: write release: {first} and sae_id, such "
            f"as sae_id: {sae_id}, in place of path"
        )
    inside = PurePosixPath(sae.subfolder or "")
    around = published_at(path, str(inside.parent))
    if around is not None and inside.name in files_on_hub("", around.loader):  # a file of the SAE names it too
        return around
    return published_at(path, str(inside))
