"""Where messages stand in tokens and samples: against a look at every token, cut and packed in every way."""

from bisect import bisect_left
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.corpora.documents import Conversation, CorpusError, Document
from extraction_assets.engine.corpora.message_spans import (
    MessageSpan,
    SampleMessagesBuilder,
    shifted,
    speakers,
    token_spans,
)
from extraction_assets.engine.corpora.samples import counted_positions
from extraction_assets.engine.corpora.tokenize import Packing, TokenizedCorpus, tokenize_corpus
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.tokenizers.tokenizer import load_tokenizer
from extraction_assets.settings import CorpusSettings
from extraction_assets_tests.chats import CHAT, CHATML, LLAMA_3, SPECIAL, TEMPLATES, make_chat_model

LONGER = [
    *CHAT,
    {"role": "user", "content": "naïve 😀 café, and the lazy fox"},
    {"role": "assistant", "content": "no."},
]
DOCUMENTS: list[Document] = [(f"chat {n}", Conversation(LONGER[n:], "here")) for n in (0, 2, 4)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """With Llama 3's template, and a post-processor that would add a BOS of its own."""
    folder = make_chat_model(tmp_path_factory.mktemp("chat") / "model", LLAMA_3)
    loaded = load_tokenizer(LocalCheckpoint(folder))
    from tokenizers.processors import TemplateProcessing

    loaded.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert loaded("a")["input_ids"][0] == loaded.bos_token_id
    return loaded


def tokenize(tokenizer: Any, documents: list[Document], length: int = 400, samples: int = 1, **packing: Any) -> Any:
    return tokenize_corpus(documents, tokenizer, Packing(length, **packing), samples)


def said(tokenizer: Any, corpus: TokenizedCorpus, row: int = 0) -> list[tuple[str, str]]:
    assert corpus.messages is not None
    ids = corpus.token_ids[row]
    return [(role, tokenizer.decode(ids[start:stop])) for role, start, stop in corpus.messages.of_sample(row)]


@pytest.mark.parametrize("prepend_bos", [None, True, False])
def test_a_template_with_bos_gives_one_bos_whatever_prepend_bos_says(tokenizer: Any, prepend_bos: bool | None) -> None:
    corpus = tokenize(tokenizer, DOCUMENTS[:1], prepend_bos=prepend_bos)
    expected = tokenizer.apply_chat_template(LONGER, date_string="26 Jul 2024")["input_ids"]
    assert corpus.token_ids[0][corpus.attention_mask[0]].tolist() == expected
    assert expected.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(("prepend_bos", "expected"), [(None, 1), (True, 1), (False, 0)])
def test_a_template_without_bos_gets_one_if_wanted(tokenizer: Any, prepend_bos: bool | None, expected: int) -> None:
    tokenizer.chat_template, template = CHATML, tokenizer.chat_template
    try:
        corpus = tokenize(tokenizer, DOCUMENTS[:1], prepend_bos=prepend_bos)
        assert corpus.token_ids[0].tolist().count(tokenizer.bos_token_id) == expected
        assert said(tokenizer, corpus)[0] == ("user", "the quick brown fox")
    finally:
        tokenizer.chat_template = template


def test_a_bos_that_the_content_adds_is_left_out(tokenizer: Any) -> None:
    tokenizer.chat_template, template = "{{ bos_token }}{{ messages[0]['content'] }}", tokenizer.chat_template
    try:
        corpus = tokenize(tokenizer, [("a", Conversation([{"role": "user", "content": "<s>the fox"}], "here"))])
        assert corpus.token_ids[0].tolist().count(tokenizer.bos_token_id) == 1
        assert [span.start for span in corpus.messages.of_sample(0)] == [0]
    finally:
        tokenizer.chat_template = template


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_tokens_of_a_span_are_those_of_the_message(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template, before = template, tokenizer.chat_template
    try:
        found = said(tokenizer, tokenize(tokenizer, DOCUMENTS[:1]))
        assert [(role, text.strip()) for role, text in found] == [(one["role"], one["content"]) for one in LONGER]
    finally:
        tokenizer.chat_template = before


def test_what_the_assistant_says_is_what_transformers_masks(tokenizer: Any) -> None:
    generation = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}"
        "{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
    )
    tokenizer.chat_template, before = generation, tokenizer.chat_template
    try:
        corpus = tokenize(tokenizer, DOCUMENTS[:1], prepend_bos=False)
        masked = tokenizer.apply_chat_template(LONGER, return_assistant_tokens_mask=True)["assistant_masks"]
    finally:
        tokenizer.chat_template = before
    assert [int(role == "assistant") for _, role in _roles(corpus, 0)] == masked


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["documents", "concatenated"])
@pytest.mark.parametrize("length", [7, 16, 33])
def test_cut_and_packed_samples_say_of_each_token_what_the_whole_chat_says(
    tokenizer: Any, packing: str, length: int
) -> None:
    whole = [_roles(tokenize(tokenizer, [document]), 0) for document in DOCUMENTS]
    expected = [one for document in whole for one in document if one[0] != tokenizer.bos_token_id]
    many = sum(map(len, whole))
    count = bisect_left(range(many), True, key=lambda n: not _fits(tokenizer, n + 1, length, packing))  # as many as fit
    corpus = tokenize(tokenizer, DOCUMENTS, length, count, packing=packing)
    found = [one for row in range(count) for one in _roles(corpus, row) if one[0] != tokenizer.bos_token_id]
    assert found == expected


def _fits(tokenizer: Any, count: int, length: int, packing: str) -> bool:
    try:
        tokenize(tokenizer, DOCUMENTS, length, count, packing=packing)
    except CorpusError:
        return False
    return True


def _roles(corpus: TokenizedCorpus, row: int) -> list[tuple[int, str]]:
    """(token, role) of each token of a sample; no role is ''."""
    assert corpus.messages is not None
    ids = corpus.token_ids[row][corpus.attention_mask[row]].tolist()
    roles = [""] * len(ids)
    for role, start, stop in corpus.messages.of_sample(row):
        roles[start:stop] = [role] * (stop - start)
    return list(zip(ids, roles, strict=True))


def test_special_tokens_of_the_template_do_not_count_and_names_of_roles_do(tokenizer: Any) -> None:
    corpus = tokenize(tokenizer, DOCUMENTS[:1])
    counted = counted_positions(corpus, slice(0, 1), CorpusSettings(source="a", max_length=400))[0]
    text = tokenizer.decode(corpus.token_ids[0][counted])
    assert not [one for one in ("<s>", *SPECIAL) if one in text]
    assert text.startswith("system\n\nCutting Knowledge Date")
    assert text.count("assistant\n\n") == 3


def test_text_has_no_messages(tokenizer: Any) -> None:
    assert tokenize(tokenizer, [("a", "the fox")]).messages is None


def test_a_tokenizer_without_offsets_is_refused(tokenizer: Any) -> None:
    class Slow:
        is_fast, bos_token_id = False, None

    with pytest.raises(CorpusError, match=r"needs a tokenizer that says which characters .* but Slow does not"):
        tokenize(Slow(), DOCUMENTS)
    with pytest.raises(CorpusError, match="but the model has none"):
        tokenize(None, DOCUMENTS)


def test_a_token_of_two_messages_is_of_the_first() -> None:
    offsets = np.array([[0, 2], [2, 5], [5, 5], [5, 6]])
    assert token_spans([MessageSpan("a", 1, 3), MessageSpan("b", 3, 6)], offsets) == [("a", 0, 2), ("b", 2, 4)]


def test_a_reader_learns_who_speaks_at_the_window_and_where_a_message_begins() -> None:
    messages = [MessageSpan("user", 2, 5), MessageSpan("assistant", 7, 9), MessageSpan("user", 12, 13)]
    assert speakers(messages, 3, 12) == {3: "user …", 7: "assistant"}
    assert speakers(messages, 5, 7) == {}


spans = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 9)), max_size=4)


@given(st.lists(spans, max_size=6), st.data())
def test_rows_of_gives_the_messages_of_any_samples(
    samples: list[list[tuple[str, int, int]]], data: st.DataObject
) -> None:
    builder = SampleMessagesBuilder()
    for sample in samples:
        builder.add([MessageSpan(role, start, start + length) for role, start, length in sample])
    found = builder.build()
    chosen = np.array(data.draw(st.lists(st.sampled_from(range(len(samples))))) if samples else [], dtype=np.int64)
    rows, counts = found.rows_of(chosen)
    assert counts.tolist() == [len(samples[number]) for number in chosen]
    assert found.spans[rows, 1].tolist() == [start for number in chosen for _, start, _ in samples[number]]
    assert [len(found.of_sample(row)) for row in range(len(samples))] == [len(sample) for sample in samples]


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 9), st.integers(0, 9))
def test_a_shifted_span_holds_the_tokens_that_the_piece_has(start: int, length: int, first: int, place: int) -> None:
    tokens = {place + at - first for at in range(start, start + length) if first <= at < first + 8}
    found = [
        one for span in shifted([MessageSpan("a", start, start + length)], first, 8, place) for one in range(*span[1:])
    ]
    assert set(found) == tokens
