"""One rule for BOS on every path, and special is what the tokenizer's files mark."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from extraction_assets.engine.corpora.documents import Document
from extraction_assets.engine.corpora.tokenize import Packing, TokenizedCorpus, tokenize_corpus
from extraction_assets.engine.models.tokenizers.tokenizer import read_tokenizer
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.tokenizer_folders import byte_level, make_folder

TEXTS = ["the lazy dog ran", "a fox", "", "in 2024, they say, the café"]
ROLES = {
    "bos": {"bos_token": "<s>", "eos_token": "</s>"},
    "bos is eos": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
}


@pytest.fixture(scope="module", params=list(ROLES))
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return read_tokenizer(
        local(make_folder(tmp_path_factory.mktemp("bos"), byte_level(), "llama", ROLES[request.param]))
    )


def as_tokens(tokenizer: Any, documents: list[Document]) -> list[Document]:
    return [
        (name, np.array(tokenizer(str(text), add_special_tokens=False)["input_ids"], dtype=np.int64))
        for name, text in documents
    ]


def assert_same(one: TokenizedCorpus, other: TokenizedCorpus) -> None:
    for own, theirs in zip(one[:5], other[:5], strict=True):
        assert np.array_equal(own, theirs)


@pytest.mark.parametrize("packing", ["documents", "concatenated"])
@pytest.mark.parametrize("prepend_bos", [None, True, False])
@pytest.mark.parametrize("separator", ["auto", "eos", "none"])
@pytest.mark.parametrize("leading", [1, 3])
def test_a_bos_that_documents_begin_with_changes_nothing(
    tokenizer: Any, packing: Any, prepend_bos: bool | None, separator: Any, leading: int
) -> None:
    """Neither tokens nor masks nor the numbers of first tokens, for text and for tokens."""
    choice = Packing(5, packing, prepend_bos, separator)
    plain: list[Document] = [(str(number), text) for number, text in enumerate(TEXTS)]
    begun: list[Document] = [(name, tokenizer.bos_token * leading + str(text)) for name, text in plain]
    expected = tokenize_corpus(plain, tokenizer, choice, 4)
    for documents in (begun, as_tokens(tokenizer, begun), as_tokens(tokenizer, plain)):
        assert_same(tokenize_corpus(documents, tokenizer, choice, 4), expected)


@pytest.mark.parametrize("packing", ["documents", "concatenated"])
def test_a_rendered_bos_is_not_doubled(tokenizer: Any, packing: Any) -> None:
    corpus = tokenize_corpus([("a", f"{tokenizer.bos_token}the dog")], tokenizer, Packing(4, packing), 1)
    own = tokenizer.convert_tokens_to_ids([tokenizer.bos_token, "the", "Ġdog"])
    assert corpus.token_ids[0, corpus.attention_mask[0]].tolist() == own
    assert corpus.first_tokens.tolist() == [0]


@given(
    documents=st.lists(st.lists(st.sampled_from(["<s>", "<|endoftext|>", "a", "b"]), max_size=8), min_size=1),
    packing=st.sampled_from(["documents", "concatenated"]),
    length=st.integers(2, 6),
)
def test_no_sample_begins_with_two_bos_that_a_document_does_not_hold_inside(
    tokenizer: Any, documents: list[list[str]], packing: Any, length: int
) -> None:
    bos = tokenizer.bos_token_id
    texts: list[Document] = [(str(number), "".join(own)) for number, own in enumerate(documents)] + [("last", "abab")]
    corpus = tokenize_corpus(texts, tokenizer, Packing(length, packing), 1)
    assert corpus.token_ids[0, 0] == bos
    assert corpus.token_ids[0, 1] != bos
    assert corpus.first_tokens[0] == 0


def test_a_document_of_bos_alone_gives_no_sample(tokenizer: Any) -> None:
    bos = tokenizer.bos_token
    corpus = tokenize_corpus([("a", bos), ("b", f"{bos}x")], tokenizer, Packing(4), 1)
    assert corpus.document_numbers.tolist() == [1]


def test_prepend_bos_false_leaves_none(tokenizer: Any) -> None:
    corpus = tokenize_corpus([("a", f"{tokenizer.bos_token}x")], tokenizer, Packing(4, prepend_bos=False), 1)
    assert corpus.token_ids[0, :1].tolist() == tokenizer.convert_tokens_to_ids(["x"])


def test_special_tokens_without_a_role_are_special(tmp_path: Path) -> None:
    """Llama 3's chat tokens: the file marks them, and no setting names them."""
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken(name, special=True) for name in ("<|header|>", "<|eot|>")])
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    loaded = read_tokenizer(local(make_folder(tmp_path, tokenizer, "llama", ROLES["bos"])))
    corpus = tokenize_corpus([("a", "<|header|>user<tool><|eot|>")], loaded, Packing(8), 1)
    shown = loaded.convert_ids_to_tokens(corpus.token_ids[0, corpus.special_tokens_mask[0]].tolist())
    assert shown == ["<s>", "<|header|>", "<|eot|>"]
