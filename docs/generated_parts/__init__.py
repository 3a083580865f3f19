"""The generated parts of README.md and docs/: one function a part, and its name on the pages."""

from collections.abc import Callable

from generated_parts.assets import assets, stale
from generated_parts.commands import commands
from generated_parts.engine import published_saes, statistics, transformer_lens_names
from generated_parts.exports import export_options, exports, parquet_tables
from generated_parts.rooms import contracts, engine_rooms, layers, rooms
from generated_parts.scaling import (
    scaling_bends,
    scaling_formulas,
    scaling_rates,
    scaling_remedies,
    scaling_totals,
)
from generated_parts.settings import (
    gpu_fields,
    settings_corpus,
    settings_extraction,
    settings_keep,
    settings_language_model,
    settings_saes,
    store_fields,
)

PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part
    for part in (
        settings_extraction,
        settings_language_model,
        settings_corpus,
        settings_saes,
        settings_keep,
        gpu_fields,
        store_fields,
        assets,
        stale,
        transformer_lens_names,
        published_saes,
        statistics,
        commands,
        rooms,
        engine_rooms,
        layers,
        contracts,
        exports,
        export_options,
        parquet_tables,
        scaling_totals,
        scaling_formulas,
        scaling_bends,
        scaling_remedies,
        scaling_rates,
    )
}
