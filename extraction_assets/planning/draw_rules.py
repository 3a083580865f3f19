"""What the settings of an extraction have drawn from every feature."""

from extraction_assets.engine.shapes import DrawRules
from extraction_assets.settings import ExtractionSettings


def draw_rules(settings: ExtractionSettings) -> DrawRules | None:
    """None with ``statistics: basic``."""
    if settings.statistics == "basic":
        return None
    return DrawRules(**{name: getattr(settings, name) for name in DrawRules._fields})
