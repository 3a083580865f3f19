"""Published SAEs that words of a user mean: parts of a release, a model in any spelling, a repository, an id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from extraction_assets.engine.saes.model_names import plain_model_name
from extraction_assets.engine.saes.published import PublishedSae, Release, registry
from extraction_assets.engine.saes.published.near import natural, near_names

_SIZE = re.compile(r"[-_](\d+(?:\.\d+)?)([bm])(?![a-z0-9])")


class Found(NamedTuple):
    """A release, and those of its SAEs that are meant, in natural order of their ids."""

    release: Release
    saes: list[PublishedSae]


def search(words: Sequence[str]) -> list[Found]:
    """The releases with SAEs that all ``words`` match, case aside, those of one family of models by the model's size.

    A word that is a release's whole name means it alone, not others that begin so. A number means a model that has it
    as a word (``gemma 3``), or else a release, or else any part of a name.
    """
    words = [one for word in words for one in word.split()]
    releases = registry().releases
    named = [word for word in words if word in releases]
    among = [releases[name] for name in dict.fromkeys(named)] or list(releases.values())
    others = [word.lower() for word in words if word not in releases]
    numbers = {word for word in others if word.isdigit()}
    in_models = [one for one in among if numbers <= _words(one.model)]
    in_releases = [one for one in among if numbers <= _words(f"{one.name} {one.model} {one.repository}")]
    for chosen in (in_models, in_releases, among):
        found = [Found(release, _matching(release, others)) for release in chosen]
        if found := [one for one in found if one.saes]:
            return _by_size(found)
    return []


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def _by_size(found: Sequence[Found]) -> list[Found]:
    """Families of models in the order of their first releases, in each the small models first."""
    families = [_SIZE.sub("", one.release.model.lower()).removesuffix("-it").removesuffix("-pt") for one in found]
    order = sorted(range(len(found)), key=lambda i: (families.index(families[i]), _size(found[i].release.model)))
    return [found[i] for i in order]


def _size(model: str) -> float:
    """Parameters in millions, as the name says; 0 where it does not."""
    size = _SIZE.search(model.lower())
    return 0.0 if size is None else float(size[1]) * (1000 if size[2] == "b" else 1)


def near_words(words: Sequence[str]) -> list[str]:
    """Names of releases, models and repositories that look like one of ``words``."""
    known = dict.fromkeys(
        name for one in registry().releases.values() for name in (one.name, one.model, one.repository)
    )
    return list(dict.fromkeys(near for word in words for near in near_names(word, known)))


def _matching(release: Release, words: Sequence[str]) -> list[PublishedSae]:
    of_ids = [word for word in words if not _of_release(word, release)]
    prefix = release.name.lower()
    ids = [one for one in release.saes if all(word in f"{prefix}/{one}".lower() for word in of_ids)]
    return [release.sae(one) for one in sorted(ids, key=natural)]


def _of_release(word: str, release: Release) -> bool:
    """Whether a word is part of a release's name, model or repository, or its model in another spelling."""
    fields = (release.name, release.model, release.repository)
    if any(word in field.lower() for field in fields):
        return True
    if plain_model_name(word) == plain_model_name(release.model):
        return True
    return any(character.isdigit() for character in word) and _squashed(word) in _squashed(release.model)


def _squashed(name: str) -> str:
    """``llama318b`` for ``Llama-3.1-8B`` and for ``llama3.1-8b``."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
