"""The formats of exports, and their options."""

from generated_parts.markdown import table

_CHECKPOINT = "the SAE's checkpoint"


def exports() -> str:
    """Which files each format writes, who reads them, and what they need."""
    from extraction_assets.exports.formats import FORMATS, export_format

    rows = []
    for name in FORMATS:
        one = export_format(name)
        needs = ", ".join(_CHECKPOINT if need == "checkpoint" else f"`{need}`" for need in one.NEEDS)
        rows.append([f"`{name}`", one.WHAT, one.READ_BY, needs or "nothing more"])
    return table(["format", "files", "read by", "needs, beside the merge"], rows)


def export_options() -> str:
    """What may be chosen of each format."""
    from extraction_assets.exports.formats import FORMATS, export_format

    rows = [
        [f"`{name}`", f"`{option}`", f"`{one.default}`" if one.default else "", one.meaning]
        for name in FORMATS
        for option, one in export_format(name).OPTIONS.items()
    ]
    return table(["format", "option", "default", "meaning"], rows)


def parquet_tables() -> str:
    """The columns of the Parquet files."""
    from extraction_assets.exports.formats.shared.parquet_tables import TABLES

    rows = [[f"`{name}`", f"`{one.name}`", one.meaning] for name, columns in TABLES.items() for one in columns]
    return table(["file", "column", "meaning"], rows)
