"""An extraction in memory: texts of a program through a model and an SAE, without a project and without Dagster.

What computes is loaded by the call: Dagster looks at every name of the package when it loads components.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.settings import check_name

if TYPE_CHECKING:
    from extraction_assets.engine.saes.sae import SAE
    from extraction_assets.python_api.extracted import ExtractedResults
    from extraction_assets.python_api.pipeline import ExtractionRequest

_log = logging.getLogger("extraction_assets.extract")

SAE_NAME = "sae"

_TAKEN = {
    "": (
        "language_model",
        "corpus",
        "saes",
        "evaluation_samples",
        "start_sample",
        "chunk_size",
        "top_k_examples",
        "min_activation",
        "statistics",
        "interval_examples",
        "random_examples",
        "draw_seed",
    ),
    "language_model": ("revision", "dtype", "trust_remote_code"),
    "corpus": (
        "max_length",
        "packing",
        "sequence_separator_token",
        "prepend_bos",
        "tokenizer",
        "drop_duplicates",
        "count_special_tokens",
        "exclude_first_positions",
        "exclude_positions",
        "exclude_outlier_norms",
    ),
    "saes": (SAE_NAME,),
}
"""Fields of each group of settings that an extraction in memory takes."""


_PARAMETERS = (
    "hook",
    "tokenizer",
    "name",
    "device",
    "dtype",
    "batch_size",
    "max_length",
    "top_k_examples",
    "directions",
    "show_progress",
)
"""What ``extract`` takes by name; some of these may stand among the settings too."""


def extract(
    model: "str | Path | Any",
    sae: "str | Path | tuple[str, str] | SAE | Any",
    texts: Iterable[str] | Mapping[str, str],
    *,
    hook: str | None = None,
    tokenizer: Any | None = None,
    name: str = "texts",
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 128,
    max_length: int = 128,
    top_k_examples: int = 100,
    settings: Mapping[str, Any] | None = None,
    directions: bool = False,
    show_progress: bool = True,
) -> "ExtractedResults":
    """Runs texts through a model and an SAE, and gives what ``open_results(…)["name/sae"]`` gives, from a temporary
    folder that goes away on ``close``, at the end of a ``with``, or with the object. The numbers are those of a run of
    Dagster over the same samples.

    ``model`` is a folder, an id of the hub, or a model of transformers, which stays as and where it is; with one that
    does not say where it is from, give its ``tokenizer``. ``sae`` is a folder, ``release/sae_id`` or an id of the hub,
    or a loaded SAE (``engine.load_sae``, or an SAE of sae-lens). ``texts`` are documents, or a mapping from their ids.

    ``hook`` is what the SAE reads, by default what its checkpoint records. ``device`` is ``auto`` (a free GPU, else the
    CPU), ``cpu`` or ``cuda:N``. ``settings`` are further fields as a YAML file has them under ``attributes``, such as
    ``{"corpus": {"packing": "concatenated"}, "saes": {"sae": {"minimum_variance_explained": 0.2}}}``. With
    ``directions`` logit lens and nearest decoder rows are computed too, from a model and an SAE in files.

    Raises the errors of a run before anything is computed: CheckpointError, HookError, SanityError, CorpusError.
    """
    from extraction_assets.execution.hub_downloads import hub_downloads
    from extraction_assets.execution.progress import bars
    from extraction_assets.python_api.given import documents_of
    from extraction_assets.python_api.pipeline import ExtractionRequest

    values: dict[str, Any] = {
        "name": check_name(name, "name"),
        "language_model": {"dtype": dtype},
        "corpus": {"source": "texts in memory", "max_length": max_length},
        "saes": {SAE_NAME: {} if hook is None else {"hook": hook}},
        "top_k_examples": top_k_examples,
    }
    _refuse_unused(settings or {})
    wanted = ExtractionRequest(_merged(values, settings or {}), documents_of(texts), device, batch_size, directions)
    with bars() if show_progress else contextlib.nullcontext(), hub_downloads(_log):
        return _extracted(model, tokenizer, sae, wanted)


def _extracted(model: Any, tokenizer: Any | None, sae: Any, wanted: "ExtractionRequest") -> "ExtractedResults":
    """The results in a folder of their own, of which nothing is left after an error."""
    from extraction_assets.engine.memory import release_memory
    from extraction_assets.python_api.extracted import ExtractedResults
    from extraction_assets.python_api.given import given_model, given_sae
    from extraction_assets.python_api.pipeline import run

    folder = Path(tempfile.mkdtemp(prefix="extraction-assets-"))
    try:
        found_model, found_sae = given_model(model, tokenizer, folder / "model"), given_sae(sae, folder / "sae")
        named = {"language_model": {"path": found_model.path}, "saes": {SAE_NAME: found_sae.fields}}
        wanted = wanted._replace(fields=_merged(named, wanted.fields))
        source = run(wanted, found_model, found_sae, folder, _log)
        release_memory()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return ExtractedResults(source, wanted.fields["name"], SAE_NAME, folder, found_sae.loaded)


def _refuse_unused(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a field that has no part here, such as one that says how a source is read."""
    groups: dict[str, Mapping[str, Any]] = {
        "": settings,
        **{group: settings.get(group) or {} for group in ("language_model", "corpus", "saes")},
    }
    for group, fields in groups.items():
        known = _TAKEN[group]
        for field in fields:
            if field not in known:
                raise ValueError(_why_unused(group, field))


def _why_unused(group: str, field: str) -> str:
    path = f"{group}.{field}".removeprefix(".")
    if field in _PARAMETERS:
        return f"settings: {path} is a parameter of extract itself: extract(model, sae, texts, {field}=...)"
    known = ", ".join(one for one in _TAKEN[group] if one not in _PARAMETERS)
    return (
        f"settings: {path} has no part in an extraction in memory; {group or 'settings'} has {known}, "
        f"and extract itself takes {', '.join(_PARAMETERS)}"
    )


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with others in place of them, group by group."""
    found = dict(values)
    for field, value in changes.items():
        before = found.get(field)
        found[field] = _merged(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return found
