"""Running the checks so that none can take the others down."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from extraction_assets.engine.findings import Finding
from extraction_assets.host.locations import HistoryUnavailableError

SECONDS = 60.0
"""How long one check may take: a hung network drive or database must not hang the doctor."""

Check = Callable[[], Iterable[Finding]]


def examine(checks: Mapping[str, Check], seconds: float = SECONDS) -> Iterator[Finding]:
    """Runs checks one after the other. One that fails or hangs is itself a finding."""
    for name, check in checks.items():
        yield from _isolated(name, check, seconds)


def _isolated(name: str, check: Check, seconds: float) -> list[Finding]:
    found: list[Finding] = []

    def look() -> None:
        try:
            found.extend(check())
        except BaseException as error:  # SystemExit too: a module that is imported may end the process
            found.append(Finding("error", f"could not be looked at: {one_line(error)}", check=name))

    thread = threading.Thread(target=look, name=f"doctor-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [*found, Finding("error", f"gave no answer in {seconds:g} seconds", check=name)]
    return found


def one_line(error: BaseException) -> str:
    """The first line of an error with its type."""
    lines = str(error).strip().splitlines()
    if isinstance(error, HistoryUnavailableError):
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
