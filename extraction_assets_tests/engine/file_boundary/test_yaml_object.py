"""A YAML file of a checkpoint: what is read of it, and what is refused by one sentence."""

import time
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.engine.file_boundary import CheckpointError, CheckpointFile, read_yaml_object


def read(folder: Path, content: str | bytes) -> dict[str, Any]:
    (folder / "config.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    return read_yaml_object(CheckpointFile("SAE", folder, "config.yaml"))


def test_a_file_as_wandb_writes_it_is_read(tmp_path: Path) -> None:
    text = "wandb_version: 1\n\n_wandb:\n  value:\n    t:\n      1: [5, 11]\nd_model:\n  desc: null\n  value: 2048\n"
    assert read(tmp_path, text)["d_model"] == {"desc": None, "value": 2048}


def test_what_is_named_twice_is_the_same_value(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &one [1, 2]\nb: *one\n") == {"a": [1, 2], "b": [1, 2]}


def laughs(levels: int, merge: str = "") -> str:
    """Ten of the one before in each line."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        ten = "[" + ", ".join([f"*a{level - 1}"] * 10) + "]"
        lines.append(f"a{level}: &a{level} " + (f"{{{merge}: {ten}}}" if merge else ten))
    return "\n".join(lines)


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is not a YAML mapping but null"),
    "list": ("- 1\n- 2", "is not a YAML mapping but a list"),
    "text": ("version https://git-lfs.github.com/spec/v1", "is not a YAML mapping but a text"),
    "two documents": ("a: 1\n---\nb: 2", "is not YAML of plain values"),
    "no YAML": ("a: [1, 2", "is not YAML of plain values"),
    "not utf-8": (b"a: \xff\xfe", "is not YAML .not UTF-8"),
    "object of Python": (
        "a: !!python/object/apply:os.mkdir [harm]",
        "is not YAML of plain values .could not determine",
    ),
    "key twice": ("a: 1\na: 2", "the key 'a' stands there twice"),
    "key twice below": ("b: {a: 1, a: 2}", "the key 'a' stands there twice"),
    "merge": ("a: &a {x: 1}\nb: {<<: *a}", "merges mappings by <<"),
    "merge bomb": (laughs(30, "<<"), "merges mappings by <<"),
    "list as a key": ("? [1, 2]\n: 3", "is not YAML of plain values"),
    "number of many digits": ("a: " + "9" * 5000, "is not YAML of plain values"),
    "no such day": ("a: 2024-13-45", "is not YAML of plain values .month must be in 1"),
    "half a surrogate pair": ('a: "\\ud800"', "is not "),
    "deep list": ("a: " + "[" * 100_000, "is nested too deeply"),
    "deep value": ("a: " + "[" * 70 + "]" * 70, "is nested too deeply, more than 64 levels"),
    "itself": ("a: &a [*a]", "is nested too deeply, more than 64 levels"),
    "huge": ("a: " + "x" * (1 << 18), "has 262,147 bytes, more than the 262,144 that"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_one_sentence_with_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"config.yaml .*{message}") as caught:
        read(tmp_path, content)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "harm").exists()


def test_a_file_that_repeats_itself_takes_no_time(tmp_path: Path) -> None:
    start = time.process_time()
    assert len(read(tmp_path, laughs(30))) == 30
    assert time.process_time() - start < 2
