"""``extraction-assets``: run, show, list and watch extractions from a terminal."""

from extraction_assets.cli import doctor, recover, run, setup, show, ui, upkeep
from extraction_assets.cli.app import main

__all__ = ["doctor", "main", "recover", "run", "setup", "show", "ui", "upkeep"]
