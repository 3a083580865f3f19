"""An extraction of chats, from a JSONL file to what a reader sees."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extraction_assets.database.connect import open_database
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.queries.words import role_counts
from extraction_assets.engine.corpora.message_spans import SampleMessages
from extraction_assets.engine.models.tokenizers.tokenizer import load_tokenizer
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.corpus_files import open_corpus, write_corpus
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets_tests.chats import CHAT, LLAMA_3, SPECIAL, make_chat_model, write_chats
from extraction_assets_tests.command import declare, succeed
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

CHATS = [[*CHAT, {"role": "user", "content": f"number {number} of the lazy dogs"}] for number in range(12)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExtractionSettings:
    """Twelve chats of three samples each, with Llama 3's template, which writes the BOS."""
    folder = tmp_path_factory.mktemp("chats")
    model = make_chat_model(folder / "chat-model", LLAMA_3)
    return make_settings(
        folder,
        language_model={"path": str(model)},
        corpus={
            "source": str(write_chats(folder / "chats.jsonl", CHATS)),
            "messages_column": "messages",
            "max_length": 64,
            "prepend_bos": False,
        },
        evaluation_samples=36,
    )


@pytest.fixture(scope="module")
def ran(settings: ExtractionSettings, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(settings, tmp_path_factory.mktemp("home")).everything()


def test_the_stored_corpus_says_who_speaks(ran: Project) -> None:
    arrays = ran.plan.corpus.arrays
    tokenizer = load_tokenizer(ran.plan.extraction.checkpoint)
    assert arrays.messages is not None
    said: dict[str, str] = {}
    for row in np.flatnonzero(arrays.document_numbers == 0):
        for role, start, stop in arrays.messages.of_sample(row):
            said[role] = said.get(role, "") + tokenizer.decode(arrays.token_ids[row][start:stop])
    expected = {role: "".join(one["content"] for one in CHATS[0] if one["role"] == role) for role in said}
    assert said == expected


def test_each_chat_begins_with_one_bos(ran: Project) -> None:
    bos = load_tokenizer(ran.plan.extraction.checkpoint).bos_token_id
    arrays = ran.plan.corpus.arrays
    assert ((arrays.token_ids == bos).sum(axis=1) == (arrays.first_tokens == 0)).all()
    assert (arrays.token_ids[arrays.first_tokens == 0, 0] == bos).all()


def test_no_special_token_is_an_examples_strongest(ran: Project) -> None:
    strongest = {token for (token,) in ran.rows("SELECT DISTINCT max_token FROM feature_activations")}
    assert strongest
    assert not strongest & {"<s>", "</s>", *SPECIAL}


def test_show_says_who_speaks(ran: Project, settings: ExtractionSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_HOME", str(ran.home))
    module = declare(monkeypatch, settings)
    engine = open_database(ran.url)
    with engine.connect() as connection:
        number = find_extraction(connection, "tiny", "relu").id
        (feature, *_) = role_counts(connection, number).query("assistant > 0").index
    engine.dispose()
    shown = succeed(module, "show", "tiny", str(feature), "--sae", "relu", "--limit", "20", "--context", "60")
    assert "assistant<|end_header_id|>⏎⏎«assistant»" in re.sub(r"[‹›\[\]]", "", shown)  # noqa: RUF001
    assert "«user»" in shown


def test_the_report_says_who_speaks(ran: Project) -> None:
    page = (ran.home / "tiny" / "relu" / "feature_report" / "report.html").read_text("utf-8")
    assert '<b class="role">«assistant»</b>' in page


def test_the_rows_are_those_of_the_corpus(ran: Project) -> None:
    stored = ran.rows("SELECT sample_index, role, start, stop FROM sample_messages ORDER BY sample_index, number")
    named = sorted({index for (index,) in ran.rows("SELECT sample_index FROM samples")})
    messages = ran.plan.corpus.arrays.messages
    assert messages is not None
    assert stored == [(row, *span) for row in named for span in messages.of_sample(row)]


def test_another_template_makes_the_corpus_stale(ran: Project, tmp_path: Path) -> None:
    other = make_chat_model(tmp_path / "model", LLAMA_3 + "{{ 'bye' }}")
    values: dict[str, Any] = ran.settings.model_dump(mode="json")
    changed = ExtractionSettings.model_validate({**values, "language_model": {"path": str(other)}})
    with pytest.raises(ValueError, match="made from other settings"):
        ExtractionPlan(changed, ChunkStore(ran.home))


@pytest.mark.parametrize("spans", [[[0, 3, 70]], [[9, 0, 1]], [[0, 5, 5]]])
def test_spans_that_the_samples_cannot_have_are_damage(ran: Project, tmp_path: Path, spans: list[list[int]]) -> None:
    arrays = ran.plan.corpus.arrays
    offsets = np.array([0] + [1] * len(arrays.token_ids))
    wrong = arrays._replace(messages=SampleMessages(offsets, np.array(spans, dtype=np.int32), ["user"]))
    with pytest.raises(DamagedFileError, match=r"message_spans.npy.* roles or positions that the corpus does not have"):
        write_corpus(tmp_path, wrong, source="a", tokenizer="b", packing="documents", start_sample=0)


def test_who_speaks_is_part_of_what_a_corpus_is(ran: Project, tmp_path: Path) -> None:
    arrays = ran.plan.corpus.arrays
    assert arrays.messages is not None
    said = {"source": "a", "tokenizer": "b", "packing": "documents", "start_sample": 0}
    roles = [{"user": "human"}.get(role, role) for role in arrays.messages.roles]
    for changed in (arrays.messages._replace(roles=roles), None):
        other = write_corpus(tmp_path, arrays._replace(messages=changed), **said)  # type: ignore[arg-type]
        again = open_corpus(tmp_path, other.manifest.fingerprint)
        assert again.content_fingerprint(slice(0, 9)) != ran.plan.corpus.content_fingerprint(slice(0, 9))
        assert again.tokens_fingerprint(slice(0, 9)) == ran.plan.corpus.tokens_fingerprint(slice(0, 9))


def test_check_says_how_much_each_role_says(
    settings: ExtractionSettings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = declare(monkeypatch, settings)
    output = succeed(module, "check", "tiny", "--device", "cpu")
    (line,) = [line for line in output.splitlines() if line.startswith("roles")]
    assert re.search(r"user \d+, assistant \d+ tokens of one batch of the source", line)
