"""Files of lines, compressed."""

from collections.abc import Iterator

from extraction_assets.exports.formats.shared.gzip_file import gzip_text
from extraction_assets.exports.output import Output


def write_lines(out: Output, name: str, lines: Iterator[str]) -> None:
    """A gzip file of lines, each with its end; none where there is no line."""
    first = next(lines, None)
    if first is None:
        return
    with out.file(name) as path, gzip_text(path) as append:
        append(first)
        for line in lines:
            append(line)
