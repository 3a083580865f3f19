"""What a module declares, what it will write, and the results database."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from extraction_assets.doctor.findings import Finding
from extraction_assets.doctor.machine import nearest
from extraction_assets.home import database_url, extraction_home

if TYPE_CHECKING:
    from extraction_assets.settings import ExtractionSettings

# What a chunk takes before one was measured: 4 bytes a number, and of each feature that fires on a token its number
# and value (4 + 4 bytes) with 64 of them a token, more than most SAEs have.
_BYTES_PER_ACTIVATION = 4
_BYTES_PER_TOKEN_OF_FEATURES = 8 + 64 * 8
_BYTES_PER_EXAMPLE, _BYTES_OF_STATISTICS = 40, 600
"""Of the top-k table; 16 to 23 and 596 in the demo."""
_BYTES_PER_ROW = 200
"""Of the database: 192 a stored example in the demo."""

Declared = Callable[[], Mapping[str, "ExtractionSettings"]]


class _Sizes(NamedTuple):
    width: int
    latent_dims: dict[str, int]


def check_definitions(module: str, declared: Declared, explain: Callable[[BaseException], str]) -> Iterator[Finding]:
    """Whether the module's definitions load, and the checkpoints that they name are there."""
    try:
        extractions = declared()
    except BaseException as error:
        yield Finding("problem", "definitions", f"{module} does not load: {explain(error)}", "mend what it names")
        return
    names = ", ".join(extractions) or "no extraction"
    yield Finding("ok" if extractions else "warning", "definitions", f"{module} declares {names}")
    for name, settings in extractions.items():
        paths = {"model": settings.language_model.path}
        paths |= {f"SAE {sae}": chosen.path for sae, chosen in settings.saes.items()}
        for what, path in paths.items():
            if path.startswith("/") and not Path(path).is_dir():
                advice = "correct its path in the YAML file"
                yield Finding("problem", "definitions", f"{name}: {what} {path} is not there", advice)


def check_estimate(declared: Declared) -> Iterator[Finding]:
    """About how much the declared extractions will still write, against what is free."""
    from extraction_assets.stores.chunk_store import ChunkStore
    from extraction_assets.upkeep.files import readable_size

    store, total = ChunkStore(extraction_home()), 0.0
    for name, settings in declared().items():
        remaining = _remaining_bytes(settings, store)
        if remaining is None:
            yield Finding("ok", "estimate", f"{name}: not known before its checkpoints are downloaded")
        elif remaining:
            total += remaining
            yield Finding("ok", "estimate", f"{name}: about {readable_size(int(remaining))} to come")
        else:
            yield Finding("ok", "estimate", f"{name}: all chunks are on disk")
    free = shutil.disk_usage(nearest(store.root)).free
    if total > free:
        text = f"about {readable_size(int(total))} to come, but {readable_size(free)} are free in {store.root}"
        yield Finding("problem", "estimate", text, "move EXTRACTION_HOME to a larger disk, or extraction-assets clean")


def check_database() -> Iterator[Finding]:
    """Whether the results database answers, and its schema is the one that this version knows."""
    import sqlalchemy as sa

    from extraction_assets.database.connect import schema_revisions
    from extraction_assets.database_urls import DatabaseError, error_sentence, parse_url, shown_url

    try:
        url = parse_url(database_url(), "EXTRACTION_DATABASE_URL")
    except ValueError as error:
        yield Finding("problem", "database", str(error), "correct EXTRACTION_DATABASE_URL")
        return
    shown = shown_url(url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        yield Finding("ok", "database", f"{shown} is not made yet: the first merge makes it")
        return
    try:
        current, known = schema_revisions(url)
    except (DatabaseError, sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        first = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        yield Finding("problem", "database", error_sentence("it", url, first), _database_advice(url))
        return
    if current is not None and current not in known:
        advice = "upgrade extraction-assets, or use another database"
        yield Finding("problem", "database", f"{shown} has schema {current}, newer than this version knows", advice)
    elif current != known[0]:
        text = f"{shown} has {'schema ' + current if current else 'no tables yet'}: the next merge makes it {known[0]}"
        yield Finding("ok", "database", text)
    else:
        yield Finding("ok", "database", f"{shown}, schema {current}")


def _database_advice(url: Any) -> str:
    if url.get_backend_name() == "sqlite":
        return "is it a SQLite file, and readable? Put it back from a back-up, or move it away and merge again"
    return "is the server up, the driver installed and the password right? See EXTRACTION_DATABASE_URL"


def _remaining_bytes(settings: "ExtractionSettings", store: Any) -> float | None:
    """Bytes of the chunks and rows that are not there yet; None where the checkpoints are not on this machine."""
    from extraction_assets.stores.chunk_store import chunk_assets

    sizes = _checkpoint_sizes(settings)
    if sizes is None:
        return None
    rows = [settings.chunk_rows(key) for key in settings.chunk_keys]
    samples = dict(zip(settings.chunk_keys, (span.stop - span.start for span in rows), strict=True))
    total = 0.0
    current = _current_keys(settings, store)
    for asset, sae in chunk_assets(settings.saes):
        stored = current(asset, sae)
        lacking = sum(count for key, count in samples.items() if key not in stored)
        if lacking:
            measured = _measured_per_sample(store, settings.name, asset, sae, samples)
            total += lacking * (measured or _assumed_per_sample(settings, sizes, asset, sae))
            if asset == "top_k_table" and not measured and sae is not None:
                total += sizes.latent_dims[sae] * settings.top_k_examples * _BYTES_PER_ROW
    return total


def _current_keys(settings: "ExtractionSettings", store: Any) -> Callable[[Any, str | None], set[str]]:
    """Which chunks of an asset need not be computed: those of the current fingerprint.

    Where the corpus has to be made first, nobody knows which that is: then those of any.
    """
    from extraction_assets.plan import ExtractionPlan

    try:
        plan = ExtractionPlan(settings, store)
    except (ValueError, OSError):
        return lambda asset, sae: set(store.stored_keys(settings.name, asset, sae))
    return lambda asset, sae: {key for key in settings.chunk_keys if plan.chunk_state(asset, key, sae) == "done"}


def _measured_per_sample(store: Any, name: str, asset: str, sae: str | None, samples: dict[str, int]) -> float | None:
    """Bytes a sample takes in the files that are there."""
    folder = store.asset_folder(name, asset, sae)
    stored = [path for path in folder.glob("[0-9]*-*") if path.name.split("-")[0] in samples]
    keys = {path.name.split("-")[0] for path in stored}
    if not keys:
        return None
    generations = max(1, len(stored) // (len(keys) * (2 if asset == "top_k_table" else 1)))
    return sum(path.stat().st_size for path in stored) / generations / sum(samples[key] for key in keys)


def _assumed_per_sample(settings: "ExtractionSettings", sizes: _Sizes, asset: str, sae: str | None) -> float:
    length = settings.corpus.max_length
    if asset == "model_activations":
        return length * sizes.width * _BYTES_PER_ACTIVATION * len(settings.hooks)
    if asset == "sae_features":
        return length * _BYTES_PER_TOKEN_OF_FEATURES
    latent_dim = sizes.latent_dims[str(sae)]
    chunk = min(settings.chunk_size, settings.evaluation_samples)
    examples = min(settings.top_k_examples, chunk) * _BYTES_PER_EXAMPLE
    return latent_dim * (examples + _BYTES_OF_STATISTICS) / chunk


def _checkpoint_sizes(settings: "ExtractionSettings") -> _Sizes | None:
    """D and F from the checkpoints' own JSON files, without loading or downloading anything."""
    model = _json(Path(settings.language_model.path) / "config.json")
    model = model.get("text_config", model)
    width = next((model[name] for name in ("hidden_size", "n_embd", "d_model") if name in model), None)
    dims = {name: _json(Path(sae.path) / "cfg.json").get("d_sae") for name, sae in settings.saes.items()}
    if width is None or None in dims.values():
        return None
    return _Sizes(int(width), {name: int(dim) for name, dim in dims.items() if dim is not None})


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
