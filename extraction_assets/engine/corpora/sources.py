"""Finding out what a corpus source is, by looking at it."""

from collections import defaultdict
from pathlib import Path

from extraction_assets.engine.corpora.columns import Columns
from extraction_assets.engine.corpora.documents import CorpusError, Source, relative_names
from extraction_assets.engine.corpora.file_search import matching_files
from extraction_assets.engine.corpora.hub_datasets import HubDataset, SavedDataset
from extraction_assets.engine.corpora.jsonl import JsonLines
from extraction_assets.engine.corpora.kinds import FileKind, file_kind, not_read
from extraction_assets.engine.corpora.parquet import ParquetFiles
from extraction_assets.engine.corpora.text_files import TextFiles, standard_library
from extraction_assets.settings import STANDARD_LIBRARY, CorpusSettings, is_hub_id

_SHOWN = {"text": "text", "jsonl": "JSONL", "parquet": "Parquet"}
_COLUMN_FIELDS = ("text_column", "id_column", "token_column", "attention_mask_column", "messages_column")
_HUB_FIELDS = ("revision", "configuration", "streaming")


def find_source(corpus: CorpusSettings) -> Source:
    """The source of a corpus, opened as what it is.

    Text files, JSONL and Parquet files are recognised by their suffixes, a folder of ``save_to_disk`` by its files; a
    missing path of the form ``owner/name`` is a data set of the hub. Raises CorpusError if nothing is
    found, where files of several kinds are, and if a setting has no meaning for what is found.
    """
    seed = corpus.shuffle_seed
    if corpus.source == STANDARD_LIBRARY:
        _refuse_settings(corpus, ("read_as", *_COLUMN_FIELDS, "split", *_HUB_FIELDS), "text files")
        return standard_library(seed)
    columns = Columns(
        corpus.text_column,
        corpus.id_column,
        corpus.token_column,
        corpus.attention_mask_column,
        corpus.messages_column,
    )
    source = str(Path(corpus.source).expanduser())
    if is_hub_id(corpus.source):
        _refuse_settings(corpus, ("read_as",), "a data set of the hub")
        return HubDataset(
            corpus.source,
            columns,
            revision=corpus.revision,
            configuration=corpus.configuration,
            split=corpus.split,
            streaming=corpus.streaming,
            shuffle_seed=seed,
        )
    if _is_saved_dataset(Path(source)):
        _refuse_settings(corpus, ("read_as", *_HUB_FIELDS), "a data set on disk")
        return SavedDataset(Path(source), corpus.split, columns, seed)
    files, folder = matching_files(source)
    names, kind = relative_names(files, folder), _common_kind(corpus, files)
    if kind == "text":
        _refuse_settings(corpus, (*_COLUMN_FIELDS, "split", *_HUB_FIELDS), "text files")
        return TextFiles(names, files, seed)
    _refuse_settings(corpus, ("split", *_HUB_FIELDS), f"{_SHOWN[kind]} files")
    return (JsonLines if kind == "jsonl" else ParquetFiles)(names, files, columns, seed)


def _common_kind(corpus: CorpusSettings, files: list[Path]) -> FileKind:
    """What all files are read as; CorpusError if they are of several kinds, or of one that is not read."""
    if corpus.read_as != "auto":
        return corpus.read_as
    kinds = defaultdict(list)
    for file in files:
        kinds[file_kind(file)].append(file)
    if None in kinds:
        what, remedy = not_read(kinds[None][0])
        others = "" if len(kinds) == 1 else "; or name the files to read by a glob, such as '*.txt'"
        raise CorpusError(
            f"corpus source {corpus.source!r}: {kinds[None][0]} is {what}, which is not read: {remedy}{others}"
        )
    if len(kinds) > 1:
        seen = " and ".join(
            f"{_SHOWN[kind]} files ({members[0].name})" for kind, members in sorted(kinds.items()) if kind
        )
        raise CorpusError(
            f"corpus source {corpus.source!r} mixes {seen}: name one kind by a glob, such as '*.parquet', or say by "
            "corpus.read_as what all are read as"
        )
    (kind,) = kinds
    assert kind is not None
    return kind


def _is_saved_dataset(folder: Path) -> bool:
    one = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return one or (folder / "dataset_dict.json").is_file()


def _refuse_settings(corpus: CorpusSettings, fields: tuple[str, ...], kind: str) -> None:
    changed = corpus.model_dump(include=set(fields), exclude_defaults=True)
    if changed:
        name = next(field for field in fields if field in changed)
        raise CorpusError(
            f"corpus.{name} is {changed[name]!r}, but corpus source {corpus.source!r} is {kind}, for which it has no "
            "meaning: leave it out"
        )
