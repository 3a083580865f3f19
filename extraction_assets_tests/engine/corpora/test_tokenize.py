"""Text becomes samples that never span documents, with masks that tell padding from tokens."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from extraction_assets.engine.corpora import tokenize as corpus_module
from extraction_assets.engine.corpora.documents import CorpusError, Document, batched
from extraction_assets.engine.corpora.tokenize import (
    Packing,
    SampleBlock,
    SampleCount,
    SampleStream,
    TokenizedCorpus,
    count_samples,
    documents_behind,
    tokenize_corpus,
)
from extraction_assets_tests.tiny import TEXTS

DOCUMENTS: list[Document] = [
    ("a", TEXTS["first.txt"]),
    ("empty", ""),
    ("b", "def add(a, b):"),
    ("c", TEXTS["third.txt"]),
]
WIDTH = 9


@pytest.fixture(scope="module")
def tokenizer(llama: str) -> Any:
    """Byte-level BPE whose pad token is its BOS and EOS token."""
    return AutoTokenizer.from_pretrained(llama)


@pytest.fixture(scope="module")
def ids(tokenizer: Any) -> list[list[int]]:
    """Each document's tokens, without BOS."""
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in DOCUMENTS]


def sample_count(ids: list[list[int]]) -> int:
    return sum(-(-len(own) // (WIDTH - 1)) for own in ids)


@pytest.fixture(scope="module")
def whole(tokenizer: Any, ids: list[list[int]]) -> TokenizedCorpus:
    return tokenize_corpus(DOCUMENTS, tokenizer, Packing(WIDTH), sample_count(ids))


# Samples


def test_samples_are_each_documents_tokens_in_order_tails_kept(whole: TokenizedCorpus, ids: list[list[int]]) -> None:
    for number, own in enumerate(ids):
        rows = whole.document_numbers == number
        text = whole.attention_mask[rows]
        text[:, 0] = False  # BOS
        assert whole.token_ids[rows][text].tolist() == own
        assert whole.first_tokens[rows].tolist() == list(range(0, len(own), WIDTH - 1))


def test_no_sample_spans_two_documents_and_empty_ones_give_none(whole: TokenizedCorpus) -> None:
    assert whole.document_ids == ["a", "empty", "b", "c"]
    assert sorted(set(whole.document_numbers.tolist())) == [0, 2, 3]
    assert whole.document_numbers.tolist() == sorted(whole.document_numbers.tolist())


def test_every_sample_begins_with_bos_which_is_special(whole: TokenizedCorpus, tokenizer: Any) -> None:
    assert set(whole.token_ids[:, 0].tolist()) == {tokenizer.bos_token_id}
    assert whole.special_tokens_mask[:, 0].all()
    assert not whole.special_tokens_mask[:, 1:].any()


def test_masks_cover_the_tokens_and_nothing_else(whole: TokenizedCorpus) -> None:
    lengths = whole.attention_mask.sum(axis=1)
    assert np.array_equal(whole.attention_mask, np.arange(WIDTH) < lengths[:, None])
    assert not (whole.special_tokens_mask & ~whole.attention_mask).any()
    assert 1 < lengths.min() < lengths.max() == WIDTH


def test_an_end_token_in_the_text_is_a_token_though_it_pads_too(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    corpus = tokenize_corpus([("a", "x<|endoftext|>y")], tokenizer, Packing(6), 1)
    end = tokenizer.eos_token_id
    assert (corpus.token_ids[0, :4] == end).tolist() == [True, False, True, False]
    assert corpus.attention_mask[0].tolist() == [True] * 4 + [False] * 2
    assert corpus.special_tokens_mask[0].tolist() == [True, False, True, False, False, False]


def test_bos_may_be_left_out(tokenizer: Any, ids: list[list[int]]) -> None:
    corpus = tokenize_corpus(DOCUMENTS, tokenizer, Packing(WIDTH, prepend_bos=False), 2)
    assert corpus.token_ids[0].tolist() == ids[0][:WIDTH]
    assert corpus.first_tokens.tolist() == [0, WIDTH]
    assert not corpus.special_tokens_mask.any()


def test_types_and_shapes(whole: TokenizedCorpus, ids: list[list[int]]) -> None:
    total = sample_count(ids)
    assert whole.token_ids.shape == whole.attention_mask.shape == whole.special_tokens_mask.shape == (total, WIDTH)
    assert [array.dtype.name for array in whole[:5]] == ["int32", "bool", "bool", "int64", "int64"]


def test_start_sample_keeps_the_absolute_alignment(tokenizer: Any, whole: TokenizedCorpus) -> None:
    part = tokenize_corpus(DOCUMENTS, tokenizer, Packing(WIDTH), 4, start_sample=3)
    for own, all_ in zip(part[:5], whole[:5], strict=True):
        assert np.array_equal(own, all_[3:7])


def test_more_samples_rename_nothing(tokenizer: Any, whole: TokenizedCorpus) -> None:
    few = tokenize_corpus(DOCUMENTS, tokenizer, Packing(WIDTH), 5)
    for own, all_ in zip(few[:5], whole[:5], strict=True):
        assert np.array_equal(own, all_[:5])


def test_too_few_samples_name_both_numbers(tokenizer: Any, ids: list[list[int]]) -> None:
    total = sample_count(ids)
    message = rf"holds {total} samples of 9 positions, but {total + 3} are requested .start_sample 2 \+ "
    with pytest.raises(CorpusError, match=message):
        tokenize_corpus(DOCUMENTS, tokenizer, Packing(WIDTH), total + 1, start_sample=2)


def test_documents_that_are_not_needed_are_not_read(tokenizer: Any) -> None:
    def endless() -> Iterator[Document]:
        for number in range(10**6):
            assert number < 200, "read far too much"
            yield str(number), "some text"

    assert len(tokenize_corpus(endless(), tokenizer, Packing(WIDTH), 70).token_ids) == 70


def test_few_samples_have_few_documents_tokenized() -> None:
    sizes = [len(batch) for batch in batched(range(200), 64)]
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 64, 9]


def test_progress_counts_the_samples(tokenizer: Any) -> None:
    seen: list[int] = []
    stream = SampleStream(DOCUMENTS, tokenizer, Packing(WIDTH), 5, start_sample=1, on_samples=seen.append)
    for block in stream.blocks():
        assert sum(seen) == len(block.token_ids) == 5


def test_no_room_for_text_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(CorpusError, match="max_length 1 leaves no room for text after the BOS token"):
        tokenize_corpus(DOCUMENTS, tokenizer, Packing(1), 1)


def test_bos_of_a_tokenizer_without_one_is_an_error(llama: str) -> None:
    bare = AutoTokenizer.from_pretrained(llama)
    bare.bos_token = None
    with pytest.raises(CorpusError, match="prepend_bos is set, but the tokenizer has no BOS token"):
        tokenize_corpus(DOCUMENTS, bare, Packing(WIDTH, prepend_bos=True), 1)
    assert not tokenize_corpus(DOCUMENTS, bare, Packing(WIDTH), 1).special_tokens_mask.any()


# Concatenated documents


def test_concatenated_samples_are_full_and_hold_every_token(tokenizer: Any, ids: list[list[int]]) -> None:
    packing = Packing(WIDTH, "concatenated", sequence_separator_token="none", prepend_bos=False)
    tokens = [token for own in ids for token in own]
    count = -(-len(tokens) // WIDTH)
    corpus = tokenize_corpus(DOCUMENTS, tokenizer, packing, count)
    assert corpus.token_ids[corpus.attention_mask].tolist() == tokens
    assert corpus.attention_mask[:-1].all()
    assert corpus.attention_mask[-1].tolist() == [index < len(tokens) % WIDTH for index in range(WIDTH)]


def test_separators_are_special_and_text_is_not(tokenizer: Any) -> None:
    corpus = tokenize_corpus([("a", "x"), ("b", "y")], tokenizer, Packing(8, "concatenated"), 1)
    end = tokenizer.eos_token_id
    assert (corpus.token_ids[0, :4] == end).tolist() == [True, False, True, False]
    assert corpus.special_tokens_mask[0].tolist() == [True, False, True] + [False] * 5
    assert corpus.attention_mask[0].tolist() == [True] * 4 + [False] * 4


def test_a_separator_that_the_tokenizer_lacks_is_named(llama: str) -> None:
    bare = AutoTokenizer.from_pretrained(llama)
    bare.bos_token = None
    tokenize_corpus(DOCUMENTS, bare, Packing(WIDTH, "concatenated"), 1)  # by its EOS token
    with pytest.raises(CorpusError, match="sequence_separator_token is 'bos', but the tokenizer has no BOS token"):
        tokenize_corpus(DOCUMENTS, bare, Packing(WIDTH, "concatenated", sequence_separator_token="bos"), 1)
    bare.eos_token = None
    with pytest.raises(CorpusError, match="has no BOS or EOS token: choose another, or none"):
        tokenize_corpus(DOCUMENTS, bare, Packing(WIDTH, "concatenated"), 1)


# Duplicates


def test_a_sample_that_was_there_already_is_dropped_and_the_first_stays(tokenizer: Any) -> None:
    documents: list[Document] = [("a", "the dog"), ("b", "the fox"), ("c", "the dog"), ("d", "the end")]
    corpus = tokenize_corpus(documents, tokenizer, Packing(WIDTH, drop_duplicates=True), 3)
    assert [corpus.document_ids[number] for number in corpus.document_numbers] == ["a", "b", "d"]
    later = tokenize_corpus(documents, tokenizer, Packing(WIDTH, drop_duplicates=True), 1, start_sample=2)
    assert np.array_equal(later.token_ids, corpus.token_ids[2:])


def test_too_few_distinct_samples_are_counted_as_such(tokenizer: Any) -> None:
    documents: list[Document] = [(str(number), "the dog") for number in range(5)]
    with pytest.raises(CorpusError, match="holds 1 distinct samples of 9 positions, but 2 are requested"):
        tokenize_corpus(documents, tokenizer, Packing(WIDTH, drop_duplicates=True), 2)


# Documents that are tokens already


def tokens(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.int64)


def test_tokens_are_cut_as_text_is_and_need_no_tokenizer() -> None:
    corpus = tokenize_corpus([("a", tokens(5, 6, 0, 0)), ("b", tokens(7))], None, Packing(3), 3)
    assert corpus.token_ids.tolist() == [[5, 6, 0], [0, 0, 0], [7, 0, 0]]
    assert corpus.attention_mask.sum(axis=1).tolist() == [3, 1, 1]  # token 0 counts as a token, padding does not
    assert not corpus.special_tokens_mask.any()


def test_special_tokens_among_them_are_known_by_the_tokenizer(tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    corpus = tokenize_corpus([("a", tokens(5, end, 6))], tokenizer, Packing(4, prepend_bos=False), 1)
    assert corpus.special_tokens_mask.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("packing", ["documents", "concatenated"])
def test_a_bos_of_their_own_is_not_doubled(tokenizer: Any, packing: Any) -> None:
    bos = tokenizer.bos_token_id
    corpus = tokenize_corpus([("a", tokens(bos, 5, 6, 7))], tokenizer, Packing(3, packing, prepend_bos=True), 2)
    assert corpus.token_ids[corpus.attention_mask].tolist() == [bos, 5, 6, bos, 7]


def test_they_stay_as_they_are_where_nothing_is_said_about_bos(tokenizer: Any) -> None:
    bos = tokenizer.bos_token_id
    packing = Packing(3, prepend_bos=False, keep_leading_bos=True)
    corpus = tokenize_corpus([("a", tokens(bos, bos, 5, 6))], tokenizer, packing, 2)
    assert corpus.token_ids.tolist() == [[bos, bos, 5], [6, 0, 0]]


@pytest.mark.parametrize(("own", "wrong"), [((3, 100), 100), ((3, -1), -1)], ids=str)
def test_tokens_outside_the_models_vocabulary_are_named(own: tuple[int, ...], wrong: int) -> None:
    documents: list[Document] = [("good", tokens(99)), ("bad", tokens(*own))]
    with pytest.raises(CorpusError, match=f"document 'bad' holds token {wrong}: the model's vocabulary is 0 to 99"):
        tokenize_corpus(documents, None, Packing(4), 2, vocabulary_size=100)


def test_text_without_a_tokenizer_is_an_error() -> None:
    with pytest.raises(CorpusError, match="the model has no tokenizer: give token_column"):
        tokenize_corpus([("a", "text")], None, Packing(4), 1)


# Counting


@pytest.mark.parametrize("packing", ["documents", "concatenated"])
@pytest.mark.parametrize("start", [0, 2])
def test_samples_are_counted_as_they_are_made(tokenizer: Any, packing: Any, start: int) -> None:
    own = Packing(WIDTH, packing)
    counted = count_samples(DOCUMENTS, tokenizer, own, 10_000, start_sample=start)
    made = tokenize_corpus(DOCUMENTS, tokenizer, own, counted.samples - start, start_sample=start)
    assert counted.ended
    assert counted.documents == documents_behind(made.document_numbers, len(made.document_ids), packing)
    with pytest.raises(CorpusError, match=rf"lower evaluation_samples to {counted.samples - start} or add text"):
        tokenize_corpus(DOCUMENTS, tokenizer, own, counted.samples - start + 1, start_sample=start)


def test_documents_before_the_first_sample_are_not_behind_any(tokenizer: Any, ids: list[list[int]]) -> None:
    first = -(-len(ids[0]) // (WIDTH - 1))
    assert count_samples(DOCUMENTS, tokenizer, Packing(WIDTH), 10_000).documents == 3
    assert count_samples(DOCUMENTS, tokenizer, Packing(WIDTH), 10_000, start_sample=first).documents == 2


def test_counting_stops_at_the_number_asked_for_and_reads_no_further(tokenizer: Any) -> None:
    def documents() -> Iterator[Document]:
        for number in range(100):
            yield str(number), TEXTS["first.txt"]
        raise AssertionError("read on")

    assert count_samples(documents(), tokenizer, Packing(WIDTH), 3) == SampleCount(
        3, 1, 1, ended=False, documents_cut=1
    )


def test_documents_of_several_samples_are_counted_as_cut(tokenizer: Any) -> None:
    documents: list[Document] = [("long", "fox " * WIDTH), ("short", "fox"), ("longer", "fox " * 3 * WIDTH)]
    assert count_samples(documents, tokenizer, Packing(WIDTH), 100).documents_cut == 2
    assert count_samples(documents, tokenizer, Packing(WIDTH, "concatenated"), 100).documents_cut == 0


def test_counting_refuses_a_token_that_the_model_does_not_know(tokenizer: Any) -> None:
    documents: list[Document] = [("good", np.array([1, 2])), ("bad", np.array([1, 99_999]))]
    with pytest.raises(CorpusError, match="document 'bad' holds token 99999: the model's vocabulary is 0 to 319"):
        count_samples(documents, tokenizer, Packing(WIDTH), 100, vocabulary_size=320)


def test_counting_stops_when_its_time_is_up(tokenizer: Any) -> None:
    endless: Iterator[Document] = iter(lambda: ("empty", ""), None)
    counted = count_samples(endless, tokenizer, Packing(WIDTH), 3, seconds=0.05)
    assert (counted.samples, counted.ended) == (0, False)


def test_documents_joined_in_one_sample_are_all_behind_it(tokenizer: Any) -> None:
    documents: list[Document] = [(str(number), "fox") for number in range(10)]
    counted = count_samples(documents, tokenizer, Packing(1000, "concatenated"), 5)
    assert counted == SampleCount(1, 10, 10, ended=True)


@pytest.mark.parametrize("size", [1, 2, 10**6])
def test_blocks_are_the_samples_in_their_order(
    tokenizer: Any, whole: TokenizedCorpus, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_BLOCK_SAMPLES", size)
    samples = len(whole.token_ids)
    stream = SampleStream(DOCUMENTS, tokenizer, Packing(WIDTH), samples)
    blocks = list(stream.blocks())
    assert max(len(block.token_ids) for block in blocks) == min(size, samples)
    for name in SampleBlock._fields[:-1]:
        joined = np.concatenate([getattr(block, name) for block in blocks])
        assert joined.dtype == getattr(whole, name).dtype
        assert np.array_equal(joined, getattr(whole, name))
    assert [name for block in blocks for name in block.document_ids] == whole.document_ids
    assert stream.shape == whole.shape
    with pytest.raises(CorpusError, match="but 100000000000 are requested"):
        list(SampleStream(DOCUMENTS, tokenizer, Packing(WIDTH), 10**11).blocks())


def test_ids_of_documents_before_the_first_sample_come_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_BLOCK_SAMPLES", 2)
    documents = [(str(number), np.arange(3)) for number in range(9)]
    blocks = list(SampleStream(documents, None, Packing(3), 2, start_sample=5).blocks())
    assert [(block.document_ids, block.document_numbers.tolist()) for block in blocks] == [
        (["0", "1"], []),
        (["2", "3"], []),
        (["4", "5"], [5]),
        (["6"], [6]),
    ]


def test_a_bos_that_the_model_has_no_embedding_of_is_an_error(llama: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<begin>"})  # gets the next id
    message = f"BOS token has id {rows}, but the model's vocabulary is 0 to {rows - 1}"
    for packing in (Packing(4), Packing(4, "concatenated", False, "bos")):
        with pytest.raises(CorpusError, match=message):
            tokenize_corpus([("a", "text")], tokenizer, packing, 1, vocabulary_size=rows)
