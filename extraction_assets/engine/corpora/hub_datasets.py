"""Data sets of the library ``datasets`` as a corpus: saved by ``save_to_disk``, or of the Hugging Face hub."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from extraction_assets.engine.corpora.boundary import one_sentence
from extraction_assets.engine.corpora.columns import Columns, table_documents
from extraction_assets.engine.corpora.documents import CorpusError, Document, document_order
from extraction_assets.engine.hub.refusals import HubError, HubUnavailable, is_transient, is_transport, reason

SHUFFLE_BUFFER = 10_000
"""Documents among which a streamed data set is shuffled."""

_BATCH_ROWS = 1024
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ANSWER_SECONDS = 10.0
"""A hub that has not answered one request for so long does not answer."""


class SavedDataset:
    """A folder that ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote, with its Arrow files mapped into
    memory. A document's id is by default the number of its row."""

    def __init__(self, folder: Path, split: str | None, columns: Columns, shuffle_seed: int | None = None) -> None:
        _library(f"corpus source {folder} is a data set that save_to_disk wrote")
        self._folder = _split_folder(folder, split)
        self._columns, self._seed = columns, shuffle_seed
        with one_sentence(f"{self._folder / 'state.json'} is damaged"):
            state = json.loads((self._folder / "state.json").read_text("utf-8"))
            self.files = [self._folder / file["filename"] for file in state["_data_files"]]
        missing = [file for file in self.files if not file.is_file()]
        if missing:
            raise CorpusError(f"corpus source {folder} lacks {missing[0]}")

    @property
    def num_documents(self) -> int:
        return len(self._dataset)

    def documents(self) -> Iterator[Document]:
        yield from _mapped_documents(self._dataset, self._columns, self._seed, str(self._folder))

    @cached_property
    def _dataset(self) -> Any:
        library = _library(f"corpus source {self._folder}")
        with one_sentence(f"corpus source {self._folder} cannot be read"):
            return library.load_from_disk(str(self._folder))


class HubDataset:
    """A split of a data set of the Hugging Face hub; a document's id is by default the number of its row.

    ``streaming`` reads it over the network; then ``shuffle_seed`` shuffles as ``datasets`` does, within a buffer and by
    file, and a document's number is that in the shuffled order.
    """

    def __init__(
        self,
        repository: str,
        columns: Columns,
        *,
        revision: str | None = None,
        configuration: str | None = None,
        split: str | None = None,
        streaming: bool = False,
        shuffle_seed: int | None = None,
    ) -> None:
        self.files: list[Path] = []
        self.num_documents: int | None = None
        self._what = (
            f"corpus source {repository!r} is neither a full path nor a file or folder beside the YAML file, so it is "
            "a data set of the hub"
        )
        _library(self._what)
        self._repository, self._columns, self._revision = repository, columns, revision
        self._configuration, self._split = configuration, split or "train"
        self._streaming, self._seed = streaming, shuffle_seed

    @cached_property
    def version(self) -> str:
        """The commit that ``revision`` names now.

        The revision itself where it is a full commit hash, which needs no network; else what the hub says, or, where it
        cannot be reached, what it said when the data set was last put into the cache of ``datasets``.
        """
        if self._revision is not None and _COMMIT.fullmatch(self._revision):
            return self._revision
        library = _library(self._what)
        with self._loading(library):
            builder = library.load_dataset_builder(self._repository, self._configuration, revision=self._revision)
        return str(builder.hash)

    def documents(self) -> Iterator[Document]:
        library = _library(self._what)
        # The commit that was found: the branch may move meanwhile.
        revision = self.version if _COMMIT.fullmatch(self.version) else self._revision
        with self._loading(library):
            dataset = library.load_dataset(
                self._repository,
                self._configuration,
                split=self._split,
                revision=revision,
                streaming=self._streaming,
            )
        where = f"data set {self._repository!r}, split {self._split!r}"
        if self._streaming:
            yield from self._streamed(dataset, where)
        else:
            self.num_documents = len(dataset)
            yield from _mapped_documents(dataset, self._columns, self._seed, where)

    def _streamed(self, dataset: Any, where: str) -> Iterator[Document]:
        if dataset.column_names is not None:  # otherwise the first documents show it
            self._columns.check(dataset.column_names, where)
            dataset = dataset.select_columns(self._columns.names)
        if self._seed is not None:
            dataset = dataset.shuffle(seed=self._seed, buffer_size=SHUFFLE_BUFFER)
        tables = dataset.with_format("arrow").iter(batch_size=_BATCH_ROWS)
        try:
            yield from _tables_documents(tables, self._columns, where)
        except (ConnectionError, TimeoutError) as error:
            raise self._refused(error) from error

    @contextlib.contextmanager
    def _loading(self, library: ModuleType) -> Iterator[None]:
        """In the block the library loads the data set; one sentence for whatever it raises.

        Where the hub does not answer, the library looks into its cache at once: it would repeat each request for half a
        minute, and a run repeats its step.
        """
        try:
            with _offline(library) if self._unanswered is not None else contextlib.nullcontext():
                yield
        except Exception as error:
            raise self._refused(error) from error

    @cached_property
    def _unanswered(self) -> Exception | None:
        """Why the hub does not answer; None where anything has answered."""
        return _unanswered(self._repository)

    def _refused(self, error: Exception) -> Exception:
        """The hub's own message, because its errors have too many kinds to distinguish. Only a missing network is known
        to be transient."""
        if not isinstance(error, (ConnectionError, TimeoutError)):
            return CorpusError(f"{self._what}, and that cannot be loaded: {error}")
        cause = self._unanswered or error
        revision = f" --revision {self._revision}" if self._revision else ""
        copy = (
            f"on a machine with network `hf download {self._repository} --repo-type dataset{revision} --local-dir "
            "FOLDER`, and set corpus.source to the files in that folder"
        )
        absent = "the cache of the library datasets does not have it"
        if not is_transient(cause):
            return HubError(f"{self._what}, but HF_HUB_OFFLINE is set, and {absent}: unset HF_HUB_OFFLINE, or {copy}")
        return HubUnavailable(
            f"{self._what}, which the Hugging Face hub does not give ({reason(cause)}), and {absent}: try again later, "
            f"or {copy}"
        )


def _unanswered(repository: str) -> Exception | None:
    """Why no server answers one request for a data set; None for any answer, which the library understands better."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(repository, timeout=_ANSWER_SECONDS, expand=["sha"])
    except Exception as error:
        return error if is_transport(error) else None
    return None


@contextlib.contextmanager
def _offline(library: ModuleType) -> Iterator[None]:
    """In the block the library asks no hub, as with HF_HUB_OFFLINE, which it reads once."""
    before = library.config.HF_HUB_OFFLINE
    library.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        library.config.HF_HUB_OFFLINE = before


def _library(what: str) -> ModuleType:
    """The library ``datasets``, an optional one."""
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(
            f"{what}; reading it needs the library datasets: pip install 'extraction-assets[datasets]'"
        ) from error
    library: ModuleType = datasets
    return library


def _split_folder(folder: Path, split: str | None) -> Path:
    """The folder of a split: the requested one, ``train``, or the only one."""
    described = folder / "dataset_dict.json"
    if not described.is_file():
        if split is not None:
            raise CorpusError(f"corpus.split is {split!r}, but {folder} holds one data set without splits")
        return folder
    with one_sentence(f"{described} is damaged"):
        splits = [str(name) for name in json.loads(described.read_text("utf-8"))["splits"]]
    wanted = split or ("train" if "train" in splits or len(splits) != 1 else splits[0])
    if wanted not in splits:
        raise CorpusError(f"{folder} has no split {wanted!r}; it has {', '.join(map(repr, splits))}: set corpus.split")
    return folder / wanted


def _mapped_documents(dataset: Any, columns: Columns, seed: int | None, where: str) -> Iterator[Document]:
    """Documents of a data set that can be read in any order."""
    columns.check(dataset.column_names, where)
    dataset = dataset.select_columns(columns.names).with_format("arrow")
    order = document_order(len(dataset), seed)
    for first in range(0, len(dataset), _BATCH_ROWS):
        last = min(first + _BATCH_ROWS, len(dataset))
        rows = order[first:last].tolist()
        with one_sentence(f"corpus source {where} is damaged"):
            table = dataset[first:last] if seed is None else dataset[rows]
        yield from table_documents(table, columns, rows, "", where)


def _each(tables: Iterable[Any], where: str) -> Iterator[Any]:
    """The tables of a stream; an error of the network or of a file becomes one sentence."""
    iterator = iter(tables)
    while True:
        with one_sentence(f"corpus source {where} cannot be read any further"):
            table = next(iterator, None)
        if table is None:
            return
        yield table


def _tables_documents(tables: Iterable[Any], columns: Columns, where: str) -> Iterator[Document]:
    first = 0
    for table in _each(tables, where):
        columns.check(table.column_names, where)
        yield from table_documents(table, columns, range(first, first + len(table)), "", where)
        first += len(table)
