"""Extractions of which one setting changes, and what then goes stale. Only the network is not the real one."""

import importlib.util
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from extraction_assets import catalog
from extraction_assets.assets.corpus.run import materialize_corpus
from extraction_assets.catalog import CORPUS, Asset
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.planning.plan import ExtractionPlan, corpus_recipe
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.chats import CHATML, make_chat_model
from extraction_assets_tests.tiny import TEXTS, make_language_model, make_sae, make_settings, make_texts

Versions = dict[str, Any]
"""``asset`` or ``SAE/asset`` -> its version; of an asset that has chunks, {chunk: version}."""

HUB = "someone/some-data"
PUBLISHED = "chanind/gemma-2-2b-batch-topk-matryoshka-saes-w-32k-l0-40"
"""A repository of SAELens's registry: its releases ``gemma-2-2b-res-matryoshka-dc`` and
``gemma-2-2b-res-snap-matryoshka-dc`` have SAEs of the same names, in folders ``standard`` and ``snap``."""


def make_world(folder: Path) -> None:
    """All that settings of the matrix name: models, SAEs, texts, lines of JSON."""
    make_settings(folder)
    make_language_model(folder / "other-model", seed=3)
    shutil.copytree(folder / "model", folder / "with-code")
    (folder / "with-code" / "code.py").write_text("")
    make_chat_model(folder / "chat-model", CHATML)
    make_sae(folder / "other-sae", seed=7)
    make_sae(folder / "nested" / "sae", seed=8)
    make_sae(folder / "nested" / "other", seed=9)
    make_sae(folder / "transcoder", "transcoder", seed=4)
    other = make_texts(folder / "other-texts")
    (other / "first.txt").write_text("something else entirely.\n" * 30, "utf-8")
    make_texts(folder / "equal-texts")
    for number, inside in enumerate(("standard/blocks.0", "standard/blocks.1", "snap/blocks.0")):
        make_sae(folder / "hub" / PUBLISHED / "main" / f"{inside}.hook_resid_post", seed=10 + number)
    repositories = {"model": ("model", "other-model"), "sae": ("relu", "other-sae")}
    for name, (main, branch) in repositories.items():
        shutil.copytree(folder / main, folder / "hub" / "someone" / name / "main")
        shutil.copytree(folder / branch, folder / "hub" / "someone" / name / "branch")
    rows = [_row(number % 20) for number in range(24)]  # four of them twice
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _row(number: int) -> dict[str, Any]:
    return {
        "text": f"{number} {TEXTS['first.txt'][:90]}",
        "other_text": f"{number} {TEXTS['second.txt'][:90]}",
        "name": f"document {number}",
        "ids": [5 + (7 * number + place) % 250 for place in range(14)],
        "other_ids": [5 + (3 * number + place) % 250 for place in range(14)],
        "chat": [{"role": "user", "content": f"{number} {TEXTS['first.txt'][:20]}"}],
        "other_chat": [{"role": "user", "content": f"{number} {TEXTS['second.txt'][:20]}"}],
        "mask": [1] * (10 + number % 4) + [0] * (4 - number % 4),
    }


def connect_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repositories ``someone/model`` and ``someone/sae`` with a branch, ``PUBLISHED``, and a data set of two
    configurations."""

    def download(repository: str, *, revision: str | None = None, **_: Any) -> str:
        return str(folder / "hub" / repository / (revision or "main"))

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    def builder(_path: str, configuration: str | None, revision: str | None) -> SimpleNamespace:
        return SimpleNamespace(hash=f"commit of {revision or 'main'}")

    def load(_path: str, configuration: str | None, *, split: str, revision: str | None, streaming: bool) -> Any:
        said = f"{configuration or 'default'}, {split}, {revision or 'main'}"
        from datasets import Dataset

        rows = Dataset.from_dict({"text": [f"{number} of {said}. " * 5 for number in range(40)]})
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    if importlib.util.find_spec("datasets") is not None:
        monkeypatch.setattr("datasets.load_dataset_builder", builder)
        monkeypatch.setattr("datasets.load_dataset", load)


class Laboratory:
    """Works out the versions of extractions; a corpus is tokenized once for equal settings of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stores: dict[str, ChunkStore] = {}

    def settings(self, base: dict[str, Any], changes: dict[str, Any] | None = None) -> ExtractionSettings:
        """The tiny extraction with dotted fields set; ``saes.`` begins a field of the SAE ``relu``, ``@`` a path.

        Skips the test if it needs the extra ``datasets`` and that is not installed.
        """
        if HUB in base.values():
            pytest.importorskip("datasets")
        values = make_settings(self.folder).model_dump(mode="json")
        for field, value in {**base, **(changes or {})}.items():
            *groups, name = field.replace("saes.", "saes.relu.").split(".")
            inside = values
            for group in groups:
                inside = inside[group]
            inside[name] = str(self.folder / value[1:]) if isinstance(value, str) and value[:1] == "@" else value
        return ExtractionSettings.model_validate(values)

    def fingerprints(self, settings: ExtractionSettings) -> Versions:
        plan = ExtractionPlan(settings, self._store(settings))
        recipe = corpus_recipe(settings), plan.store.current_corpus(settings.name).source  # type: ignore[union-attr]

        def version(row: Asset, sae: str | None) -> Any:
            if row.name == CORPUS:
                return recipe
            if row.partitioned:
                return {
                    key: plan.fingerprint_of(row.name, plan.settings.chunk(key), sae) for key in settings.chunk_keys
                }
            return plan.fingerprint_of(row.name, None, sae)

        return {name: version(row, sae) for name, row, sae in _each_asset(settings)}

    def code_versions(self, settings: ExtractionSettings) -> Versions:
        versions = CodeVersions(settings)
        return {name: versions.of(row.name, sae) for name, row, sae in _each_asset(settings)}

    def _store(self, settings: ExtractionSettings) -> ChunkStore:
        recipe = corpus_recipe(settings)
        if recipe not in self._stores:
            self._stores[recipe] = ChunkStore(self.folder / "stores" / recipe)
        store, name = self._stores[recipe], settings.name
        if store.current_corpus(name) is None:
            materialize_corpus(settings, store, 1, logging.getLogger("quiet"))
        return store


def stale(before: Versions, after: Versions) -> set[str]:
    """Assets of which a version is another; of chunks, one of those that were there and are wanted still."""
    return {name for name, version in before.items() if name in after and _differs(version, after[name])}


def _differs(before: Any, after: Any) -> bool:
    if not isinstance(before, dict):
        return bool(before != after)
    return any(before[key] != after[key] for key in before.keys() & after.keys())


def _each_asset(settings: ExtractionSettings) -> Iterator[tuple[str, Asset, str | None]]:
    for row in catalog.ASSETS:
        for sae in settings.saes if row.scope == "sae" else [None]:
            yield (f"{sae}/{row.name}" if sae else row.name), row, sae
