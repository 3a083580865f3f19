"""What the options ``--sae`` of ``init`` mean: folders, repositories of the hub, and names of published SAEs."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from extraction_assets.cli.app import few
from extraction_assets.cli.init_file import DeclaredSae
from extraction_assets.settings import SaeSettings

_PAGE = re.compile(r"https?://[^/]+/([^/]+/[^/]+?)/?(?:/(?:tree|blob|resolve)/[^/]+(/.*)?)?")
"""The address of a repository on the hub, or of a folder or file in it."""


def declared_saes(
    values: Sequence[str], hooks: Sequence[str], subfolders: Sequence[str], names: Sequence[str]
) -> list[DeclaredSae]:
    """The SAEs with a short name and a hook each; one error if the numbers of options do not match, for a name that
    SAELens does not have, and for a release without an id."""
    found = [_meant(value) for value in values]
    given_hooks = _one_each("--hook", hooks, len(found))
    paths = [number for number, sae in enumerate(found) if sae.release is None]
    folders = dict(zip(paths, _one_each("--subfolder", subfolders, len(paths), "--sae of a path"), strict=True))
    if len(names) not in (0, len(found)):
        raise click.ClickException(f"{len(names)} --sae-name for {len(found)} --sae: give one for each, or none")
    declared = []
    for number, (sae, hook) in enumerate(zip(found, given_hooks, strict=True)):
        sae = sae._replace(subfolder=folders.get(number))
        sae = sae._replace(name=names[number] if names else _default_name(sae))
        sae = _named(sae)
        recorded = _recorded_hook(sae, needed=not hook)
        declared.append(sae._replace(hook=hook or recorded, recorded=not hook))
    chosen = [sae.name for sae in declared]
    doubled = [name for name in chosen if chosen.count(name) > 1]
    if doubled:
        raise click.ClickException(f"two SAEs would be called {doubled[0]}: give a --sae-name for each --sae")
    return declared


def sentences_on(saes: Sequence[DeclaredSae], model: str, max_length: int) -> Iterator[str]:
    """What the registry adds: a model or a hook other than the one that an SAE was trained on, the names of copies."""
    from extraction_assets.engine.saes.formats import SaeRecord, compare_recorded
    from extraction_assets.engine.saes.published import published_sae
    from extraction_assets.engine.saes.published.described import hook
    from extraction_assets.engine.saes.published.hook_in_name import contradicts

    for sae in saes:
        if sae.release is None:
            continue
        published = published_sae(sae.release, sae.sae_id or "")
        if sae.path is not None:
            yield (
                f"SAE {sae.name}  by its folder's name it is {sae.release}/{sae.sae_id} of SAELens: release and sae_id "
                "are written beside path, for the registry knows what its files do not say"
            )
        for finding in compare_recorded(SaeRecord(model_name=published.model), model, None, max_length):
            yield f"warning  SAE {sae.name}: {finding.message}"
        if sae.hook is not None and contradicts(published, sae.hook):
            yield f"warning  SAE {sae.name}: by its name it was trained on {hook(published)}, but reads {sae.hook}"


def _meant(value: str) -> DeclaredSae:
    """What one ``--sae`` means: a path that exists, else a release and an id, else a repository of the hub."""
    from extraction_assets.engine.saes.named import refuse_unreadable
    from extraction_assets.engine.saes.published import UnknownSae, published_sae, registry

    if Path(value).expanduser().exists():
        return DeclaredSae("", path=value)
    release, _, sae_id = value.partition("/")
    try:
        if release in registry().releases and sae_id:
            refuse_unreadable(published_sae(release, sae_id))
            return DeclaredSae("", release=release, sae_id=sae_id)
        if release in registry().releases:
            ids = few(list(registry().releases[release].saes), 5)
            raise UnknownSae(
                f"it is a release: name one of its SAEs, {release}/ID, with an ID as `extraction-assets saes "
                f"{release}` lists them: {ids}"
            )
        _refuse_misspelled(value)
    except ValueError as error:
        raise click.ClickException(f"--sae {value}: {error}") from error
    return DeclaredSae("", path=value)


def _refuse_misspelled(value: str) -> None:
    """UnknownSae for what looks more like a release than like a folder or the id of a repository, ``owner/name``."""
    from extraction_assets.engine.saes.published import UnknownSae, published_at, published_release, registry
    from extraction_assets.engine.saes.published.near import resembles

    page = _PAGE.fullmatch(value)
    value = value if page is None else page[1] + (page[2] or "")
    release, _, sae_id = value.partition("/")
    if value.startswith((".", "/", "~")) or not release:
        return
    repositories = {one.repository for one in registry().releases.values()}
    repository, inside = "/".join(value.split("/")[:2]), "/".join(value.split("/")[2:]).rstrip("/")
    if page is not None or (inside and repository in repositories):
        named = published_at(repository, inside)
        instead = f"--sae {repository} --subfolder {inside}" if inside else f"--sae {repository}"
        instead = f"--sae {named.release}/{named.sae_id}" if named else instead
        raise UnknownSae(f"{repository} is a repository of the hub: give {instead}")
    owners = {one.partition("/")[0] for one in repositories}
    if release not in owners and ("/" in sae_id or resembles(release, registry().releases)):
        published_release(release)


def _one_each(option: str, values: Sequence[str], count: int, of: str = "--sae") -> list[str | None]:
    """The values of an option that is given once for all SAEs, or once for each."""
    if len(values) not in (0, 1, count) or (values and not count):
        raise click.ClickException(f"{len(values)} {option} for {count} {of}: give one for all, or one for each")
    if not values:
        return [None] * count
    return [*values] * count if len(values) == 1 else [*values]


def _default_name(sae: DeclaredSae) -> str:
    """The id, or the last part of a path or hub id, as it may stand in asset keys."""
    whole = sae.sae_id or Path(sae.path or "", sae.subfolder or "").expanduser().absolute().name
    return re.sub(r"[^A-Za-z0-9_]+", "_", whole).strip("_") or "sae"


def _named(sae: DeclaredSae) -> DeclaredSae:
    """With release and id in place of the subfolder, for a folder or file that is by its name a published SAE's."""
    from extraction_assets.engine.saes.formats import unreadable
    from extraction_assets.engine.saes.named import named_copy

    if sae.path is None or not Path(sae.path).expanduser().exists():
        return sae
    copied = named_copy(Path(sae.path, sae.subfolder or "").expanduser())
    if copied is None or unreadable(copied.loader):
        return sae
    return sae._replace(release=copied.release, sae_id=copied.sae_id, subfolder=None)


def _recorded_hook(sae: DeclaredSae, *, needed: bool) -> str | None:
    """The hook that a local checkpoint records; None for one of the hub, which is not asked here.

    ClickException for what names no SAE, or one whose names do not say what its format needs of them.
    """
    from extraction_assets.engine.saes.located_checkpoint import read_sae_record, sae_facts

    folder = Path(sae.path or "").expanduser()
    if sae.path is not None:
        _refuse_many(sae, sae.path)
    if sae.path is None or not folder.exists():
        return None
    fields = {**sae.fields, "path": str(folder)}
    checkpoint = SaeSettings.model_validate(fields).checkpoint
    try:
        hook = read_sae_record(checkpoint).hook
        sae_facts(checkpoint)
    except (ValueError, OSError) as error:
        raise click.ClickException(f"--sae {sae.path}: {error}") from error
    if hook is None and needed:
        raise click.ClickException(f"--hook is needed: the checkpoint in {folder} does not say what it reads")
    return hook


def _refuse_many(sae: DeclaredSae, path: str) -> None:
    """ClickException for a repository of many SAEs, of the hub or copied, or a folder of one, in place of an SAE."""
    from extraction_assets.engine.saes.named import is_copy_of_many, one_of_many

    folder = Path(path).expanduser()
    if folder.exists():
        if sae.subfolder is None and sae.release is None and (example := is_copy_of_many(folder)) is not None:
            raise click.ClickException(
                f"--sae {path}: by its name it is a copy of {example.repository}, which holds many SAEs: give the "
                f"folder of one, such as --subfolder {example.path}"
            )
    elif sae.subfolder != "." and (example := one_of_many(path, (sae.subfolder or "").strip("/"))) is not None:
        raise click.ClickException(
            f"--sae {path}: it holds many SAEs: `extraction-assets saes {path}` lists them; give one by its name, such "
            f"as --sae {example.release}/{example.sae_id}"
        )
