"""An extraction in memory: texts of a program through a model and an SAE, without a project and without Dagster."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.memory import release_memory
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.execution.progress import bars
from extraction_assets.python_api.extracted import ExtractedResults
from extraction_assets.python_api.given import documents_of, given_model, given_sae
from extraction_assets.python_api.pipeline import SAE_NAME, Wanted, run
from extraction_assets.settings import check_name

if TYPE_CHECKING:
    from extraction_assets.engine.saes.sae import SAE

_log = logging.getLogger("extraction_assets.extract")


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
) -> ExtractedResults:
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
    documents, chosen = documents_of(texts), check_name(name, "name")
    folder = Path(tempfile.mkdtemp(prefix="extraction-assets-"))
    try:
        with bars() if show_progress else contextlib.nullcontext(), hub_downloads(_log):
            found_model = given_model(model, tokenizer, folder / "model")
            found_sae = given_sae(sae, hook, folder / "sae")
            values: dict[str, Any] = {
                "name": chosen,
                "language_model": {"path": found_model.path, "dtype": dtype},
                "corpus": {"source": "texts in memory", "max_length": max_length},
                "saes": {SAE_NAME: found_sae.fields},
                "top_k_examples": top_k_examples,
            }
            wanted = Wanted(_merged(values, settings or {}), documents, device, batch_size, directions)
            source = run(wanted, found_model, found_sae, folder, _log)
            release_memory()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return ExtractedResults(source, chosen, SAE_NAME, folder, found_sae.loaded)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with others in place of them, group by group."""
    found = dict(values)
    for field, value in changes.items():
        before = found.get(field)
        found[field] = _merged(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return found
