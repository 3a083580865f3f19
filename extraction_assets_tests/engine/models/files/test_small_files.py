"""Every small file of a checkpoint counts, but weights, documents and images."""

from pathlib import Path

import pytest

from extraction_assets.engine.models.files.small_files import (
    SMALL_BYTES,
    holds_tokenizer,
    is_small_file,
    small_files,
    wanted_from_hub,
)

OF_A_TOKENIZER = [
    *("tokenizer.json", "vocab.txt", "merges.txt", "bpe.codes", "spm.model", "chat_template.jinja", "vocab.bpe"),
    *("qwen.tiktoken", "source.spm", "dict.src", "sentencepiece.bpe.model", "tekken.json", "vocab"),
    *("notice_tokens.json", "special_tokens_map.json"),
]
OTHERS = [
    *("pytorch_model.bin", "model.gguf", "model.onnx", "model.onnx_data", "tf_model.h5", "flax_model.msgpack"),
    *("model.safetensors.index.json", "rust_model.ot", "README.md", "LICENSE", "LICENSE.txt", "NOTICE", "paper.pdf"),
    *("figure.PNG", ".gitattributes", "modeling.py", "model.tflite", "USE_POLICY.md", "config.json"),
    *("events.out.tfevents.17.host", "results.sqlite-wal", "vocab.json.tmp", "Makefile"),
]


@pytest.mark.parametrize("name", OF_A_TOKENIZER)
def test_a_small_file_counts(name: str) -> None:
    assert is_small_file(name, 1000)
    assert not is_small_file(name, SMALL_BYTES + 1)


@pytest.mark.parametrize("name", OTHERS)
def test_others_do_not(name: str) -> None:
    assert not is_small_file(name, 1000)


def test_those_of_a_folder_are_its_top_ones(tmp_path: Path) -> None:
    for name in ("vocab.json", "README.md", "model.safetensors", "bpe.codes"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "tokenizer.json").write_text("{}")
    assert [path.name for path in small_files(tmp_path)] == ["bpe.codes", "vocab.json"]


def test_small_files_alone_make_no_tokenizer() -> None:
    assert not holds_tokenizer(["generation_config.json", "chat_template.jinja", "trainer_state.json"])
    assert all(holds_tokenizer([name]) for name in ("bpe.codes", "spm.model", "tokenizer.4.0.0.json", "vocab.bpe"))


def wanted(*, code: bool = False) -> list[str]:
    """What is wanted of a hub repository that holds all these files, a large one and one in a subfolder too."""
    sizes = dict.fromkeys([*OF_A_TOKENIZER, *OTHERS, "model.safetensors", "onnx/config.json"], 1000)
    return wanted_from_hub({**sizes, "huge": 1 << 40}, code=code)


def test_of_the_hub_small_files_and_weights_are_downloaded() -> None:
    more = ["config.json", "model.safetensors", "model.safetensors.index.json"]
    assert wanted() == sorted([*OF_A_TOKENIZER, *more])


def test_code_is_downloaded_where_it_is_trusted() -> None:
    assert set(wanted(code=True)) - set(wanted()) == {"modeling.py"}
