"""The formats of exports: what they write, who reads it, what may be chosen."""

from generated_parts.markdown import table


def export_formats() -> str:
    """One row a format."""
    from extraction_assets.exports import FORMATS, export_format

    loaded = {name: export_format(name) for name in FORMATS}
    rows = [[f"`{name}`", one.WHAT, one.READ_BY, ", ".join(map(_need, one.NEEDS))] for name, one in loaded.items()]
    return table(["format", "files", "read by", "needs, beside `feature_examples`"], rows)


def export_options() -> str:
    """One row for each format and option."""
    from extraction_assets.exports import FORMATS, export_format

    rows = [
        [f"`{name}`", f"`{option}`", f"`{one.default}`" if one.default else "", one.meaning]
        for name in FORMATS
        for option, one in export_format(name).OPTIONS.items()
    ]
    return table(["format", "option", "default", "meaning"], rows)


def parquet_tables() -> str:
    """The columns of the Parquet files."""
    from extraction_assets.exports.parquet_tables import TABLES

    rows = [[f"`{name}`", f"`{one.name}`", one.meaning] for name, columns in TABLES.items() for one in columns]
    return table(["file", "column", "meaning"], rows)


def _need(name: str) -> str:
    return "the SAE's checkpoint" if name == "checkpoint" else f"`{name}`"
