"""What is made from a checkpoint whose hash an earlier process computed: nothing is recorded before it is read."""

from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.catalog import FEATURE_DIRECTIONS
from extraction_assets.execution.keys import sae_key
from extraction_assets.stores import content_hashes
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

FAILING = "its disk may be failing"


@pytest.fixture
def trusting(tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The tiny extraction with its corpus in a new process, for which the hashes of other bytes are remembered."""
    project = Project(make_settings(tiny_folder), home)
    project.corpus()
    monkeypatch.setattr(content_hashes, "LARGE_BYTES", 1)
    monkeypatch.setattr(content_hashes, "SETTLED_NS", -(10**9))
    memory = home / content_hashes.REMEMBERED
    for wrong in (False, True):
        monkeypatch.setattr(content_hashes, "_hashes", content_hashes.Memo(4096))
        monkeypatch.setattr(content_hashes, "_on_trust", {})
        monkeypatch.setattr(content_hashes, "_written", set())
        if wrong:
            content_hashes._remember(memory, dict.fromkeys(content_hashes._remembered(memory), "0" * 64))
        assert project.plan.missing_chunks()
    return project


def test_a_chunk_of_a_checkpoint_with_other_bytes_is_not_stored(trusting: Project) -> None:
    with pytest.raises(dg.Failure, match=FAILING):
        trusting.chunks()
    assert not trusting.files("tiny/*/**/*")
    trusting.chunks()  # by the bytes that are there
    assert trusting.files("tiny/*/**/*")


def test_directions_of_a_checkpoint_with_other_bytes_are_not_stored(trusting: Project) -> None:
    key = sae_key(trusting.settings, "relu", FEATURE_DIRECTIONS)
    with pytest.raises(dg.Failure, match=FAILING):
        trusting.execute([key])
    assert not trusting.instance.fetch_materializations(key, limit=1).records
    assert not Path(trusting.url.removeprefix("sqlite:///")).exists()
