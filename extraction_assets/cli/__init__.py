"""``extraction-assets``: run, show, list and watch extractions from a terminal."""

from extraction_assets.cli import run, setup, show, ui
from extraction_assets.cli.app import main

__all__ = ["main", "run", "setup", "show", "ui"]
