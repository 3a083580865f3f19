"""``extraction-assets``: run, show, list and watch extractions from a terminal."""

from extraction_assets.cli import (
    browse,
    check,
    doctor,
    export,
    init,
    labels,
    recover,
    report,
    run,
    saes,
    setup,
    show,
    ui,
    upkeep,
)
from extraction_assets.cli.app import main

__all__ = [
    "browse",
    "check",
    "doctor",
    "export",
    "init",
    "labels",
    "main",
    "recover",
    "report",
    "run",
    "saes",
    "setup",
    "show",
    "ui",
    "upkeep",
]
