"""Errors and warnings that are found before a run spends time."""

import logging
from collections.abc import Iterable
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "ok"]


class Finding(NamedTuple):
    """One sentence for users: what was found, where, and what to do."""

    severity: Severity
    """An ``error`` stops a run before its first chunk; a ``warning`` is logged; ``ok`` is said by ``doctor`` alone."""
    message: str
    raises: type[ValueError] = ValueError
    """What an error is raised as."""
    check: str = ""
    """The check of ``doctor`` that found it."""
    advice: str = ""
    """What to do, where the message does not say it."""


def refuse(findings: Iterable[Finding]) -> None:
    """Raises the first error among the findings."""
    for finding in findings:
        if finding.severity == "error":
            raise finding.raises(finding.message)


def log_and_raise(findings: list[Finding], logger: logging.Logger) -> None:
    """Logs warnings and raises the first error."""
    for finding in findings:
        if finding.severity == "warning":
            logger.warning("%s", finding.message)
    refuse(findings)
