"""What a module declares, what it will write, and the results database."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.doctor.folders import check_folder, check_free
from extraction_assets.engine.findings import Finding
from extraction_assets.host.disk import nearest, readable_size
from extraction_assets.host.locations import chunk_store_place, extraction_home

if TYPE_CHECKING:
    from extraction_assets.defs_yaml.folder import NotLoaded
    from extraction_assets.planning.disk_estimate import Sizes
    from extraction_assets.resources import ChunkStoreResource, ResultsResource
    from extraction_assets.settings import ExtractionSettings, SaeSettings

Declared = Callable[[], Mapping[str, "ExtractionSettings"]]


def default_store() -> "ChunkStoreResource":
    """The chunk store of ``default_resources()``."""
    from extraction_assets.resources import ChunkStoreResource

    return ChunkStoreResource()


def default_results() -> "ResultsResource":
    """The results database of ``default_resources()``."""
    from extraction_assets.resources import ResultsResource

    return ResultsResource()


def check_definitions(
    module: str, declared: Declared, left_out: "Callable[[], list[NotLoaded]]", explain: Callable[[BaseException], str]
) -> Iterator[Finding]:
    """Whether the module's definitions load, and the checkpoints that they name are there."""
    try:
        extractions, not_loaded = declared(), left_out()
    except BaseException as error:
        yield Finding(
            "error", f"{module} does not load: {explain(error)}", check="definitions", advice="correct what it names"
        )
        return
    names = ", ".join(extractions) or "no extraction"
    yield Finding("ok" if extractions else "warning", f"{module} declares {names}", check="definitions")
    for one in not_loaded:
        yield Finding(
            "error",
            f"{one.file} does not load and is left out: {one.why}",
            check="definitions",
            advice="correct the file",
        )
    for name, settings in extractions.items():
        yield from _check_paths(name, settings)


def _check_paths(name: str, settings: "ExtractionSettings") -> Iterator[Finding]:
    """Checkpoints of an extraction on this machine that are not where its settings say."""
    from extraction_assets.engine.saes.located_checkpoint import sae_place

    advice, model = "correct its path in the YAML file", settings.language_model.path
    if model.startswith("/") and not Path(model).is_dir():
        yield Finding("error", f"{name}: model {model} is not there", check="definitions", advice=advice)
    for sae, chosen in settings.saes.items():
        if chosen.path is None or not chosen.path.startswith("/"):
            continue
        if not Path(chosen.path).exists():
            yield Finding("error", f"{name}: SAE {sae} {chosen.path} is not there", check="definitions", advice=advice)
            continue
        try:
            sae_place(chosen.checkpoint)  # on this machine: asks no hub
        except (OSError, ValueError) as error:
            yield Finding("error", f"{name}: SAE {sae}: {error}", check="definitions", advice=advice)


def check_estimate(
    declared: Declared, chunk_store: "Callable[[], ChunkStoreResource]" = default_store
) -> Iterator[Finding]:
    """About how much the declared extractions will still write, compared with what is free in its chunk store."""
    store, total = chunk_store().open(), 0.0
    for name, settings in declared().items():
        remaining = _remaining_bytes(settings, store)
        if remaining is None:
            yield Finding("ok", f"{name}: not known {_until(settings)}", check="estimate")
        elif remaining:
            total += remaining
            yield Finding("ok", f"{name}: about {readable_size(remaining)} to come", check="estimate")
        else:
            yield Finding("ok", f"{name}: all chunks are on disk", check="estimate")
    disk = store.files.disk
    if disk is not None and total > (free := shutil.disk_usage(nearest(disk)).free):
        text = f"about {readable_size(total)} to come, but {readable_size(free)} are free in {disk}"
        yield Finding(
            "error", text, check="estimate", advice="move EXTRACTION_HOME to a larger disk, or extraction-assets clean"
        )


def check_stores(
    chunk_store: "Callable[[], ChunkStoreResource]", results: "Callable[[], ResultsResource]"
) -> Iterator[Finding]:
    """Folders that the module's resources name, where they lie outside EXTRACTION_HOME, and object storage."""
    places: dict[str, Callable[[], Path | None]] = {
        "chunk_store.root": lambda: chunk_store().open().files.disk,
        "results.url": lambda: results().folder(),
    }
    for field, ask in places.items():
        try:
            folder = ask()
        except ValueError as error:
            yield Finding("error", str(error), check="resources", advice=f"correct {field} in the module's resources")
            continue
        if folder is not None and not folder.is_relative_to(extraction_home()):
            yield from check_folder(field, folder, "set by the module's resources")
            yield check_free("files" if field == "chunk_store.root" else "results", folder)
    with contextlib.suppress(ValueError):  # said above
        yield from _check_storage(chunk_store())


def _check_storage(chunk_store: "ChunkStoreResource") -> Iterator[Finding]:
    """Whether the object storage of chunk files answers; nothing of a folder of this machine."""
    from extraction_assets.stores.opening import open_store
    from extraction_assets.stores.storage_urls import StorageError

    store = open_store(chunk_store_place(chunk_store.root), extraction_home(), patience_seconds=0)
    if store.files.disk is not None:
        return
    try:
        store.files.inside(store.root)
    except StorageError as error:
        advice = "correct EXTRACTION_STORE, or chunk_store.root in the module's resources; make the bucket"
        yield Finding("error", str(error), check="resources", advice=advice)
        return
    yield Finding("ok", f"corpora and chunk files are in {store.place}, which answers", check="resources")


def check_database(results: "Callable[[], ResultsResource]" = default_results) -> Iterator[Finding]:
    """Whether the module's results database answers, and its schema is the one that this version knows."""
    import sqlalchemy as sa

    from extraction_assets.database.backends import backend_of_url
    from extraction_assets.database.errors import DatabaseError
    from extraction_assets.database.migrations.revisions import known_revisions
    from extraction_assets.database.read_only import schema_revision
    from extraction_assets.database.url_text import error_sentence, shown_url

    try:
        url = results().parsed_url()
    except ValueError as error:
        yield Finding(
            "error", str(error), check="database", advice="correct EXTRACTION_DATABASE_URL, or the resource's url"
        )
        return
    shown, known, backend = shown_url(url), known_revisions(), backend_of_url(url)
    file = backend.file(url)
    if file is not None and not file.is_file():
        yield Finding("ok", f"{shown} is not made yet: the first merge makes it", check="database")
        return
    try:
        current = schema_revision(url)
    except DatabaseError as error:
        yield Finding("error", str(error), check="database", advice=backend.advice)
        return
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        first = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        yield Finding("error", error_sentence("it", url, first), check="database", advice=backend.advice)
        return
    if current is not None and current not in known:
        advice = "upgrade extraction-assets, or use another database"
        yield Finding(
            "error", f"{shown} has schema {current}, newer than this version knows", check="database", advice=advice
        )
    elif current != known[0]:
        text = f"{shown} has {'schema ' + current if current else 'no tables yet'}: the next merge makes it {known[0]}"
        yield Finding("ok", text, check="database")
    else:
        yield Finding("ok", f"{shown}, schema {current}", check="database")


def _until(settings: "ExtractionSettings") -> str:
    """What has to be done before sizes are known."""
    paths = [settings.language_model.path, *(sae.path for sae in settings.saes.values())]
    here = all(path is not None and Path(path).expanduser().exists() for path in paths)
    return f"here: `check {settings.name}` reads its files" if here else "before its checkpoints are downloaded"


def _remaining_bytes(settings: "ExtractionSettings", store: Any) -> float | None:
    """Bytes of the chunks and rows that are not there yet; None if the checkpoints are not on this machine."""
    from extraction_assets.planning.disk_estimate import estimate_database, estimate_files, samples_to_come

    sizes = _checkpoint_sizes(settings)
    if sizes is None:
        return None
    to_come = samples_to_come(settings, store)
    files = estimate_files(settings, store, sizes, to_come)
    return sum(one.size for one in [*files, *estimate_database(settings, sizes, to_come)])


def _checkpoint_sizes(settings: "ExtractionSettings") -> "Sizes | None":
    """D and F from the checkpoints' own JSON files and from names of published SAEs, without loading or downloading
    anything."""
    from extraction_assets.planning.disk_estimate import Sizes

    model = _json(Path(settings.language_model.path) / "config.json")
    text = model.get("text_config")
    model = text if isinstance(text, dict) else model
    width = next((model[name] for name in ("hidden_size", "n_embd", "d_model") if name in model), None)
    dims = {name: _latent_dim(sae) for name, sae in settings.saes.items()}
    if not all(type(size) is int and size > 0 for size in (width, *dims.values())):
        return None
    latent_dims = {name: int(dim) for name, dim in dims.items() if dim is not None}
    hooks = [*settings.declared_hooks, *(_hook(name, sae) for name, sae in settings.saes.items() if sae.hook is None)]
    return Sizes(dict.fromkeys(hooks, int(width or 0)), latent_dims)


def _hook(name: str, sae: "SaeSettings") -> str:
    """A name for the hook of SAE ``name``, which its settings do not say: equal for SAEs of one hook, as far as names
    say it."""
    from extraction_assets.engine.saes.named import named_sae
    from extraction_assets.engine.saes.published.described import hook

    try:
        published = named_sae(sae.checkpoint)
    except ValueError:  # a run reports it
        published = None
    return (published and hook(published)) or f"the hook of {name}"


def _latent_dim(sae: "SaeSettings") -> Any:
    """F of an SAE: as its files on this machine say without their numbers, or the names of a published one; None if
    neither does."""
    from extraction_assets.engine.saes.located_checkpoint import sae_place
    from extraction_assets.engine.saes.named import is_local, named_sae
    from extraction_assets.engine.saes.published.described import width
    from extraction_assets.engine.saes.stored_width import stored_width

    try:
        if sae.path is not None and is_local(sae.path):
            place = sae_place(sae.checkpoint)
            found, published = _json(place.folder / "cfg.json").get("d_sae"), place.published
            found = stored_width(place) if found is None else found
        else:
            found, published = None, named_sae(sae.checkpoint)
    except (OSError, ValueError):  # a run reports it
        return None
    return width(published) if found is None and published is not None else found


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint; empty if it cannot be read, which a run reports."""
    from extraction_assets.engine.file_boundary import CheckpointError, CheckpointFile, read_json_object

    try:
        return read_json_object(CheckpointFile("checkpoint", path.parent, path.name))
    except (OSError, CheckpointError):
        return {}
