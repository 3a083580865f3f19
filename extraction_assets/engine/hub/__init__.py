"""Files of the Hugging Face hub: exactly those that are wanted, of one commit, in everyone's cache (HF_HOME).

A branch or tag is resolved to a commit once; what the cache has of that commit is never requested again. A transfer
that breaks goes on where it stopped, in the same run or in a later one, and a file enters the cache only whole: with
the size, and for large files the SHA-256, that the hub states.
"""

from extraction_assets.engine.hub.download import Snapshot, download_chosen, download_files
from extraction_assets.engine.hub.refusals import HubError, HubSource, HubUnavailable
from extraction_assets.engine.hub.session import hub_session

__all__ = [
    "HubError",
    "HubSource",
    "HubUnavailable",
    "Snapshot",
    "download_chosen",
    "download_files",
    "hub_session",
]
