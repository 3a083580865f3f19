"""delphi's explanations: one file ``{module}_latent{index}.txt`` a feature, which holds the explanation as a JSON
string (``delphi/__main__.py`` of eai-delphi 0.1.3). Plain text is read too."""

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path

from extraction_assets.database.explanations.explanation import Explanation, ExplanationsError
from extraction_assets.database.label_lines import NumberedFault

NOT_EXPLAINED = frozenset(("Explanation could not be parsed.", "No explanation found"))
"""What delphi writes where it has no explanation."""

_NAME = re.compile(r"(?P<module>.*)_latent(?P<index>[0-9]{1,18})\.txt", re.DOTALL)
_LARGEST_FILE = 2**20


def read(path: Path, source: str | None) -> Iterator[Explanation | NumberedFault]:
    """The explanations of one module (``source``) in a folder (or in ``explanations`` in it), or that in one file, and
    a fault for each file that holds no text.

    Raises ExplanationsError for a folder without such files, and for files of several modules without a chosen one.
    """
    for file, index in _files(path, source):
        try:
            text = _text(file)
        except ValueError as error:
            yield NumberedFault(1, str(error), file.name)
            continue
        if text not in NOT_EXPLAINED:
            moment = dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC)
            yield Explanation(index, text, "delphi", moment, file.name, 1)


def _files(path: Path, source: str | None) -> list[tuple[Path, int]]:
    """The files of one module and the features that they explain, by feature."""
    folders = [path, path / "explanations"] if path.is_dir() else []
    listed = next((found for folder in folders if (found := sorted(folder.glob("*_latent*.txt")))), [])
    named = [(file, match) for file in listed or [path] if (match := _NAME.fullmatch(file.name))]
    modules = sorted({match["module"] for _, match in named})
    if not named:
        raise ExplanationsError(f"{path} is no file MODULE_latentN.txt of delphi, nor a folder of such files")
    if source is None and len(modules) > 1:
        few = ", ".join(modules[:5])
        raise ExplanationsError(f"{path} explains latents of {len(modules)} modules ({few}): choose one by --source")
    if source is not None and source not in modules:
        raise ExplanationsError(f"{path} explains no latent of module {source!r}; there are: {', '.join(modules[:5])}")
    chosen = [(file, int(match["index"])) for file, match in named if source in (None, match["module"])]
    return sorted(chosen, key=lambda one: one[1])


def _text(file: Path) -> str:
    """The explanation in a file. Raises ValueError with what is wrong with it."""
    with file.open("rb") as opened:
        content = opened.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"it has more than {_LARGEST_FILE:,} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from error
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except json.JSONDecodeError:
        return text  # plain text that begins with a quotation
