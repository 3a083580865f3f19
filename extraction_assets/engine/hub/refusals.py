"""Why the hub did not give something, in one sentence that says what to do."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

_MOST_CHARACTERS = 200
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers of a server after which the same request may succeed."""


class HubError(FileNotFoundError):
    """The hub did not give a file, and the cache does not have it; the message is one sentence."""


class HubUnavailable(HubError):
    """The hub did not answer, or broke off each time: the same request may succeed later."""


class TransferError(ConnectionError):
    """A transfer that broke in a way that no library names; the message says how."""


class HubSource(NamedTuple):
    """What is wanted of the hub, as messages name it."""

    what: str
    """How a message begins: ``SAE RELEASE/ID:``."""
    repository: str
    revision: str | None = None
    """Branch, tag or commit."""
    include: tuple[str, ...] = ()
    """Patterns of its files, for the command that copies them; all files by default."""

    @property
    def command(self) -> str:
        """The command that copies its files on a machine with network."""
        revision = f" --revision {self.revision}" if self.revision else ""
        include = "".join(f" --include '{pattern}'" for pattern in self.include)
        return f"hf download {self.repository}{revision}{include} --local-dir FOLDER"


def is_transient(error: Exception) -> bool:
    """Whether the network or the server failed in a way that may pass."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT_STATUSES
    return is_transport(error) and not isinstance(error, OfflineModeIsEnabled)


def is_transport(error: Exception) -> bool:
    """Whether an error is of the connection, so that no server has answered: of the HTTP library, whichever it is."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if kinds & {"httpx.UnsupportedProtocol", "httpx2.UnsupportedProtocol"}:
        return False  # of something that is not an address
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(
        kinds & {"httpx.TransportError", "httpx2.TransportError"}
    )


def refusal(error: Exception, source: HubSource) -> HubError:
    """The sentence for whatever a request raised."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if isinstance(error, HubError):
        return error
    if isinstance(error, HFValidationError):
        return HubError(f"{source.what} {source.repository!r} is no id of a repository (owner/name) either")
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(
            f"{source.what} HF_HUB_OFFLINE is set while the cache in {cache_folder()} does not have all of it: unset "
            f"HF_HUB_OFFLINE, or on a machine with network {source.command}, and set path to that folder"
        )
    if isinstance(error, HfHubHTTPError) and not is_transient(error):
        return HubError(f"{source.what} {_answer(error, source)}")
    if not is_transient(error):
        return HubError(
            f"{source.what} the Hugging Face hub cannot be asked ({reason(error)}): correct the settings of network "
            f"and hub (HF_ENDPOINT, HF_HOME, HF_TOKEN, proxies), or on a machine with network {source.command}, and "
            "set path to that folder"
        )
    return HubUnavailable(
        f"{source.what} the Hugging Face hub does not give it ({reason(error)}), and the cache in {cache_folder()} "
        f"does not have all of it: try again later, or on a machine with network {source.command}, and set path to "
        "that folder"
    )


def _answer(error: Exception, source: HubSource) -> str:
    """What an answer of the hub other than success means."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, status = source.repository, error.response.status_code  # type: ignore[attr-defined]
    if isinstance(error, GatedRepoError):  # a kind of RepositoryNotFoundError
        return (
            f"{repository} is gated: accept its terms at {page(repository)}, and set HF_TOKEN to a token of that "
            "account, or run `hf auth login`"
        )
    if status == 401 and _sent_token(error):
        return f"the hub does not accept the token in HF_TOKEN or of `hf auth login`, or {repository} is not there"
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return (
            f"the hub has no repository {repository!r}, or it is private: correct the name, or set HF_TOKEN to a token "
            "that may read it, or run `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repository} has no revision {source.revision!r}: its branches and commits are at {page(repository)}"
    if isinstance(error, DisabledRepoError):
        return f"access to {repository} was disabled on the hub: see {page(repository)}"
    if isinstance(error, EntryNotFoundError):
        return f"{repository} lacks a file that its listing has: see {page(repository)}"
    if status == 403:
        return f"the token in HF_TOKEN or of `hf auth login` may not read {repository}: see {page(repository)}"
    return f"the Hugging Face hub did not give it ({reason(error)})"


def _sent_token(error: Exception) -> bool:
    request = getattr(getattr(error, "response", None), "request", None)
    return request is not None and "authorization" in request.headers


def page(repository: str) -> str:
    """The page of a repository for people."""
    return f"https://huggingface.co/{repository}"


def cache_folder() -> str:
    """The folder of the cache: ``hub`` in HF_HOME, or HF_HUB_CACHE."""
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def reason(error: Exception) -> str:
    """An error of a request in one line, without what signs an address and without the token."""
    from huggingface_hub import get_token

    status = getattr(getattr(error, "response", None), "status_code", None)
    said = f"HTTP {status}" if status else f"{type(error).__name__}: {error}"
    said = str(error) if isinstance(error, TransferError) else said
    text = re.sub(r"\?\S+", "", " ".join(said.split())).removesuffix(": ")
    token = None
    with contextlib.suppress(OSError):  # where HF_HOME is a file, which is then what the error says
        token = get_token()
    text = text.replace(token, "…") if token else text
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
