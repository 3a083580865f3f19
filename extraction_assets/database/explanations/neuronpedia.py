"""Neuronpedia's public ``explanations`` files: ``batch-N.jsonl.gz``, one explanation a line.

Read of a line, as its importer (plain SQL on its table ``Explanation``) has them: ``index``, ``description``,
``layer`` (the id of the source, such as ``12-gemmascope-res-16k``), ``typeName``, ``explanationModelName``,
``createdAt``. Others (``embedding``, ``umap_x`` …) are passed over.
"""

import datetime as dt
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from extraction_assets.database.explanations.explanation import Explanation, ExplanationsError
from extraction_assets.database.label_lines import BadLine, NumberedFault, json_object

_LONGEST_LINE = 2**24


def read(path: Path, source: str | None) -> Iterator[Explanation | NumberedFault]:
    """The explanations in a file, or in the files of a folder (of ``explanations`` in it, if that is there), of one
    ``source``, and a fault for each line that cannot be read.

    Raises ExplanationsError for a folder without files, a file that is no gzip file, and files of several sources
    without a chosen one.
    """
    is_good, sources = True, set[str]()
    for file in _files(path):
        for number, line in _lines(file):
            try:
                found, layer = _explanation(line, file, number)
            except BadLine as error:
                is_good = False
                yield NumberedFault(number, str(error), file.name)
                continue
            if source in (None, layer):
                yield found
            sources.add(layer)
    if is_good:  # the source of a bad line is not known
        _check_source(path, source, sources)


def _check_source(path: Path, source: str | None, sources: set[str]) -> None:
    known = ", ".join(sorted(sources)[:5])
    if source is None and len(sources) > 1:
        raise ExplanationsError(f"{path} explains features of {len(sources)} sources ({known}): choose one by --source")
    if source is not None and source not in sources:
        raise ExplanationsError(f"{path} explains no feature of source {source!r}; there are: {known or 'none'}")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for folder in (path / "explanations", path):  # a source's own folder holds other tables too
        found = [file for file in folder.glob("*") if file.name.endswith((".jsonl", ".jsonl.gz"))]
        if found:
            return sorted(found, key=_by_number)
    raise ExplanationsError(f"{path} holds no file *.jsonl or *.jsonl.gz of explanations")


def _by_number(file: Path) -> tuple[int, str]:
    """batch-2 before batch-10."""
    numbers = re.findall(r"\d+", file.name)
    return (int(numbers[0][:18]) if numbers else 0, file.name)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that hold something, with their numbers; one is at most ``_LONGEST_LINE`` long."""
    number = 0
    with _opened(file) as lines:
        try:
            while line := lines.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise ExplanationsError(f"{file}, line {number} has more than {_LONGEST_LINE:,} bytes")
                if line.strip():
                    yield number, line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ExplanationsError(f"{file} is cut or no gzip file ({error}): fetch it again") from error


def _opened(file: Path) -> IO[bytes] | gzip.GzipFile:
    with file.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    return gzip.open(file) if is_gzip else file.open("rb")


def _explanation(line: bytes, file: Path, number: int) -> tuple[Explanation, str]:
    """An explanation and the id of its source."""
    values = json_object(line)
    text, layer = values.get("description"), values.get("layer")
    if not isinstance(text, str | None) or "description" not in values:
        raise BadLine("description is not a text")
    if not isinstance(layer, str):
        raise BadLine("layer is not the id of a source")
    written = (values.get("typeName"), values.get("explanationModelName"))
    origin = ", ".join(["Neuronpedia", *(one for one in written if isinstance(one, str) and one)])
    found = Explanation(_index(values.get("index")), text or "", origin, _moment(values, file), file.name, number)
    return found, layer


def _index(value: Any) -> int:
    """A feature's number, which Neuronpedia keeps as a text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise BadLine("index is not the number of a feature")


def _moment(values: dict[str, Any], file: Path) -> dt.datetime:
    """``createdAt``, which is in UTC where it names no zone; of a line without it, when the file was written."""
    text = values.get("createdAt")
    if text is None:
        return dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC)
    try:
        moment = dt.datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadLine(f"createdAt is {text!r}, not a time") from error
