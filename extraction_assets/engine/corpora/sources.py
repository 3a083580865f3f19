"""Finding out what a corpus source is, by looking at it."""

import glob
from collections import defaultdict
from pathlib import Path

from extraction_assets.engine.corpora.columns import Columns
from extraction_assets.engine.corpora.documents import CorpusError, Source, relative_names
from extraction_assets.engine.corpora.hub_datasets import HubDataset, SavedDataset
from extraction_assets.engine.corpora.jsonl import JsonLines
from extraction_assets.engine.corpora.parquet import ParquetFiles
from extraction_assets.engine.corpora.text_files import TextFiles, standard_library
from extraction_assets.settings import STANDARD_LIBRARY, CorpusSettings, is_hub_id

_KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson"), "JSONL"),
    **{f"{kind}{packed}": "JSONL" for kind in (".jsonl", ".ndjson") for packed in (".gz", ".bz2", ".zst")},
    ".parquet": "Parquet",
}

_COLUMN_FIELDS = ("text_column", "id_column", "token_column", "attention_mask_column")
_HUB_FIELDS = ("revision", "configuration", "streaming")


def find_source(corpus: CorpusSettings) -> Source:
    """The source of a corpus, opened as what it is.

    Text files, JSONL and Parquet files are told by their names' ends, a folder of ``save_to_disk`` by the files in it;
    what is not there and has the form ``owner/name`` is a data set of the hub. Raises CorpusError where nothing is
    found, where files of several kinds are, and where a setting has no meaning for what is found.
    """
    seed = corpus.shuffle_seed
    if corpus.source == STANDARD_LIBRARY:
        _refuse_settings(corpus, (*_COLUMN_FIELDS, "split", *_HUB_FIELDS), "text files")
        return standard_library(seed)
    columns = Columns(corpus.text_column, corpus.id_column, corpus.token_column, corpus.attention_mask_column)
    root = Path(corpus.source)
    if is_hub_id(corpus.source):
        return HubDataset(
            corpus.source,
            columns,
            revision=corpus.revision,
            configuration=corpus.configuration,
            split=corpus.split,
            streaming=corpus.streaming,
            shuffle_seed=seed,
        )
    if _is_saved_dataset(root):
        _refuse_settings(corpus, _HUB_FIELDS, "a data set on disk")
        return SavedDataset(root, corpus.split, columns, seed)
    files, folder = _matching_files(corpus.source)
    names, kind = relative_names(files, folder), _common_kind(corpus.source, files)
    if kind == "text":
        _refuse_settings(corpus, (*_COLUMN_FIELDS, "split", *_HUB_FIELDS), "text files")
        return TextFiles(names, files, seed)
    _refuse_settings(corpus, ("split", *_HUB_FIELDS), f"{kind} files")
    return (JsonLines if kind == "JSONL" else ParquetFiles)(names, files, columns, seed)


def _matching_files(source: str) -> tuple[list[Path], Path]:
    """The files of a file, folder (recursively) or glob, sorted by path, and the folder that they are named from."""
    root = Path(source)
    pattern = f"{glob.escape(source)}/**/*" if root.is_dir() else source
    found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not found:
        raise CorpusError(f"corpus source {source!r} matches no file")
    files = [Path(path) for path in found]
    return files, root if root.is_dir() else files[0].parent


def _common_kind(source: str, files: list[Path]) -> str:
    kinds = defaultdict(list)
    for file in files:
        packed = "".join(file.suffixes[-2:])
        kinds[_KINDS.get(packed) or _KINDS.get(file.suffix) or "text"].append(file)
    if len(kinds) > 1:
        seen = " and ".join(f"{kind} files ({own[0].name})" for kind, own in sorted(kinds.items()))
        raise CorpusError(f"corpus source {source!r} mixes {seen}: name one kind by a glob, such as '*.parquet'")
    return next(iter(kinds))


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
