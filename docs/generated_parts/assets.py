"""The assets, and what makes each stale."""

from pydantic import BaseModel

from generated_parts.markdown import table


def assets() -> str:
    """The assets of an extraction."""
    from extraction_assets.catalog import assets_table

    return assets_table() + "\n"


def stale() -> str:
    """Which settings fields each asset depends on itself, and those on which none does."""
    from extraction_assets.catalog import ASSETS

    rows, seen = [], set[str]()
    for row in ASSETS:
        fields = [one.field.replace("sae.", "saes.NAME.") for one in row.depends]
        rows.append([f"`{row.name}`", _listed(fields)])
        seen.update(fields)
    return table(["asset", "fields"], [*rows, ["none", _listed([one for one in _all_fields() if one not in seen])]])


def _listed(fields: list[str]) -> str:
    return ", ".join(f"`{field}`" for field in fields) or "none of its own"


def _all_fields() -> list[str]:
    from extraction_assets import settings

    groups: dict[str, type[BaseModel]] = {
        "": settings.ExtractionSettings,
        "language_model.": settings.LanguageModelSettings,
        "corpus.": settings.CorpusSettings,
        "saes.NAME.": settings.SaeSettings,
        "keep.": settings.KeepSettings,
    }
    top = {prefix.partition(".")[0] for prefix in groups}
    names = [f"{prefix}{name}" for prefix, group in groups.items() for name in group.model_fields if name not in top]
    return [name for name in names if name != "name"]  # another name is another extraction
