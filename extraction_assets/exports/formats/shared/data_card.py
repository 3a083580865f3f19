"""The README.md of a folder of Parquet files: what the hub and ``datasets`` read of it, and what a person does."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from extraction_assets.engine.corpora.visible_text import visible
from extraction_assets.engine.statistics.rows_and_sentences import NO_DRAWS, were_drawn
from extraction_assets.exports.formats.shared.neuronpedia_tables import shown_source
from extraction_assets.exports.formats.shared.parquet_tables import TABLES
from extraction_assets.exports.source import ExportSource

_USE = """\
```python
from datasets import load_dataset

examples = load_dataset("PATH OR NAME OF THIS DATA SET", "examples", split="train")
```
"""


class TableFiles(NamedTuple):
    """The files of a table."""

    pattern: str
    rows: int


def data_card(source: ExportSource, files: Mapping[str, TableFiles]) -> str:
    """The text of README.md. A table without rows is described, but no configuration of the data set: readers of one
    expect rows."""
    extraction = source.extraction
    name = f"Features of {_said(extraction.sae)} ({_said(extraction.name)})"
    configs: list[dict[str, Any]] = [
        {"config_name": table, "data_files": one.pattern} for table, one in files.items() if one.rows
    ]
    configs[0]["default"] = True
    hub = {"pretty_name": name, "tags": ["sparse-autoencoder", "interpretability"], "configs": configs}
    parts = [f"---\n{yaml.safe_dump(hub, sort_keys=False, allow_unicode=True)}---\n", f"# {name}\n", _origin(source)]
    return "\n".join([*parts, _USE, *(_columns(table, one) for table, one in files.items())])


def _origin(source: ExportSource) -> str:
    extraction, corpus = source.extraction, source.corpus
    facts: dict[str, Any] = {
        "model": shown_source(extraction.model),
        "hook": extraction.hook,
        "features": f"{extraction.latent_dim:,}"
        + ("" if source.is_whole else f", {len(source.neuron_indices):,} here"),
        "corpus": shown_source(corpus.source),
        "samples": f"{extraction.sample_count:,} of up to {extraction.max_length:,} tokens",
        "counted tokens": f"{extraction.token_count:,}",
        "examples a feature": f"up to {extraction.top_k_examples:,}, the strongest",
    }
    if not were_drawn(next(source.read(source.neuron_indices[:1])).statistics):
        facts["draws"] = NO_DRAWS
    rows = "\n".join(f"| {what} | {_said(value)} |" for what, value in facts.items())
    return f"Made by extraction_assets.\n\n| | |\n| --- | --- |\n{rows}\n"


def _columns(table: str, files: TableFiles) -> str:
    rows = "\n".join(f"| `{one.name}` | {one.type} | {one.meaning} |" for one in TABLES[table])
    head = f"## {table}\n\n`{files.pattern}`, {files.rows:,} rows"
    return f"{head}\n\n| column | type | meaning |\n| --- | --- | --- |\n{rows}\n"


def _said(value: Any) -> str:
    """A text in a cell of a table."""
    return visible(str(value)).replace("|", "\\|")
