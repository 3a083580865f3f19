"""The SAEs that SAELens knows by name: which repository and folder a release and an id mean, and what is known of them.

``saes.json`` is made from SAELens's own registry by ``make published`` (``renew.py``). It holds what the files of a
checkpoint lack: scaling factors, repairs of old configurations, the model, L0, Neuronpedia's id.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from extraction_assets.engine.saes.published.near import near_names

REGISTRY = Path(__file__).with_name("saes.json")


class UnknownSae(ValueError):
    """A release or an id that the registry does not have; the message says which come near."""


@dataclass(frozen=True)
class PublishedSae:
    """What the registry says of one SAE; None where it says nothing."""

    release: str
    sae_id: str
    repository: str
    """Id of the hub repository."""
    path: str
    """Folder or file of the SAE in its repository."""
    loader: str
    """The function of SAELens that reads it, such as ``gemma_2``; ``sae_lens`` for its own format."""
    model: str
    """The language model, as SAELens names it."""
    l0: float | None = None
    """Features that fire on an average token."""
    variance_explained: float | None = None
    neuronpedia: str | None = None
    """Neuronpedia's id of the model and the SAE, ``MODEL/SOURCE``."""
    norm_scaling_factor: float | None = None
    """What inputs are multiplied by."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Entries that replace those of the checkpoint's configuration."""


class Release(NamedTuple):
    """One release of the registry."""

    name: str
    loader: str
    model: str
    repository: str
    overrides: Mapping[str, Any]
    saes: Mapping[str, list[Any]]
    """By id: path (None if it is the id), L0, variance explained, Neuronpedia's id, scaling factor; a short list lacks
    what stands last."""

    def sae(self, sae_id: str) -> PublishedSae:
        path, l0, explained, neuronpedia, scale = (*self.saes[sae_id], None, None, None, None, None)[:5]
        found = (self.name, sae_id, self.repository, path or sae_id, self.loader, self.model)
        return PublishedSae(*found, l0, explained, neuronpedia, scale, self.overrides)


class _Registry(NamedTuple):
    sae_lens: str
    """The version of SAELens that it was made from."""
    releases: Mapping[str, Release]


@functools.cache
def registry() -> _Registry:
    """The whole registry; read once in a process, in about 0.01 s."""
    stored = json.loads(REGISTRY.read_text(encoding="utf-8"))
    releases = {name: Release(name, **release) for name, release in stored["releases"].items()}
    return _Registry(stored["sae_lens"], releases)


def published_sae(release: str, sae_id: str) -> PublishedSae:
    """The SAE that SAELens's users call by these two names. Raises UnknownSae with near names."""
    found = published_release(release)
    if sae_id not in found.saes:
        raise UnknownSae(
            f"release {release!r} of SAELens {registry().sae_lens} has no SAE {sae_id!r}{_hint(found, sae_id)}"
        )
    return found.sae(sae_id)


def published_release(name: str) -> Release:
    """A release by its name. Raises UnknownSae with near names, or with the releases of a repository of that name."""
    releases = registry().releases
    if name in releases:
        return releases[name]
    there = [one.name for one in releases.values() if one.repository.lower() == name.lower()]
    if there:
        raise UnknownSae(f"{name!r} is a repository of the hub, and release is a name: {', '.join(there)}")
    raise UnknownSae(f"SAELens {registry().sae_lens} has no release {name!r}{_near(name, releases)}")


def published_at(repository: str, inside: str) -> PublishedSae | None:
    """The SAE at folder or file ``inside`` of a hub repository, if the registry has it."""
    named = _by_place().get((repository, inside))
    return None if named is None else registry().releases[named[0]].sae(named[1])


def repository_overrides(repository: str) -> Mapping[str, Any]:
    """What the registry repairs in every configuration of a hub repository, of SAEs that it does not list too."""
    found = [release.overrides for release in registry().releases.values() if release.repository == repository]
    return found[0] if found and all(one == found[0] for one in found) else {}


def all_saes() -> Iterator[PublishedSae]:
    """Every SAE of the registry, in its order."""
    for release in registry().releases.values():
        for sae_id in release.saes:
            yield release.sae(sae_id)


@functools.cache
def _by_place() -> dict[tuple[str, str], tuple[str, str]]:
    """Release and id by repository and path; of several the first, for they differ in their names alone."""
    places: dict[tuple[str, str], tuple[str, str]] = {}
    for sae in all_saes():
        places.setdefault((sae.repository, sae.path), (sae.release, sae.sae_id))
    return places


def _hint(release: Release, sae_id: str) -> str:
    """Where an id is that ``release`` does not have: in other releases of its repository, or misspelled."""
    others = [one.name for one in registry().releases.values() if one.repository == release.repository]
    having = [name for name in others if sae_id in registry().releases[name].saes]
    return f", but {' and '.join(having)} has" if having else _near(sae_id, release.saes)


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = near_names(name, known)
    return f"; near names: {', '.join(near)}" if near else ""
