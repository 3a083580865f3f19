"""The cache of huggingface_hub as a download leaves it."""

from pathlib import Path

import pytest


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of huggingface_hub, without network: snapshots lie in ``models--OWNER--NAME/snapshots/COMMIT``."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder / "hub"


def cached(cache: Path, repository: str, revision: str = "main") -> Path:
    """The folder of a repository's only cached snapshot."""
    folder, commit = cache / ("models--" + repository.replace("/", "--")), "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(commit)
    return folder / "snapshots" / commit
