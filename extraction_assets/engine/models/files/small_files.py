"""Which files of a checkpoint are small ones: all but weights, documents, images and code."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

SMALL_BYTES = 128 << 20
"""The largest vocabularies known have 34 MB; what is larger is no part of a tokenizer."""


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


_WEIGHTS = _suffixes(
    "safetensors bin pt pth ckpt gguf ggml onnx onnx_data data h5 hdf5 msgpack tflite task litertlm mlmodel mlpackage "
    "npz npy ot pb nemo engine plan pkl pickle joblib zip tar gz bz2 xz zst 7z llamafile dduf distcp parquet arrow"
)
_DOCUMENTS = _suffixes("md mdx rst pdf html htm tex bib doc docx ipynb log")
_IMAGES = _suffixes("png jpg jpeg gif svg webp bmp ico tif tiff mp3 mp4 wav flac webm mov")
_CODE = _suffixes("py pyc pyi sh so ps1 toml cfg lock")
_DATABASES = _suffixes("sqlite sqlite3 sqlite-wal sqlite-shm sqlite-journal db tmp part incomplete swp")
_NOT_A_PART = _WEIGHTS | _DOCUMENTS | _IMAGES | _CODE | _DATABASES
_PAPERS = ("readme", "license", "licence", "notice", "copying", "changelog", "citation", "use_policy", "acceptable_use")
"""How the names of documents begin that have the suffix ``.txt``, or none."""
_LOGS = "events.out"
"""How the names of a training's logs begin."""
_ALONE = frozenset({"config.json", "requirements.txt", "dockerfile", "makefile"})
"""The model's configuration belongs to the model; nothing that reads a tokenizer needs the others."""

_TOKENIZER_NAMES = frozenset(
    {
        *("added_tokens.json", "special_tokens_map.json", "tekken.json", "tokenizer_config.json"),
        *("merges.txt", "vocab.json", "vocab.txt", "vocab.tsv"),
    }
)
_TOKENIZER_SUFFIXES = frozenset({".model", ".spm", ".codes", ".bpe", ".tiktoken", ".vocab"})


def is_small_file(name: str, size: int) -> bool:
    """Whether a file in the top folder of a checkpoint can change what its tokenizer does. Weights, documents,
    images, code, hidden files and the model's ``config.json`` cannot."""
    lower = name.lower()
    suffix = PurePosixPath(lower).suffix
    if lower.startswith((".", _LOGS)) or lower in _ALONE or lower.endswith(".index.json"):
        return False
    if suffix in ("", ".txt") and lower.startswith(_PAPERS):
        return False
    return suffix not in _NOT_A_PART and size <= SMALL_BYTES


def small_files(folder: Path) -> list[Path]:
    """The small files of a checkpoint's folder, sorted by name."""
    files = [path for path in folder.iterdir() if path.is_file()]
    return sorted(path for path in files if is_small_file(path.name, path.stat().st_size))


def holds_tokenizer(names: Iterable[str]) -> bool:
    """Whether some of these files are a tokenizer's."""
    return any(
        name in _TOKENIZER_NAMES
        or (name.startswith("tokenizer") and name.endswith(".json"))
        or PurePosixPath(name).suffix in _TOKENIZER_SUFFIXES
        for name in names
    )


def wanted_from_hub(sizes: Mapping[str, int], *, code: bool) -> list[str]:
    """Which of a repository's files, given as {path: bytes}, a model needs: weights as safetensors, its configuration
    and its small files, all of the top folder; and its Python files where that ``code`` is wanted."""
    top = [name for name, size in sizes.items() if "/" not in name and is_small_file(name, size)]
    weights = [name for name in sizes if "/" not in name and name.endswith((".safetensors", ".safetensors.index.json"))]
    python = [name for name in sizes if code and name.endswith(".py")]
    return sorted({*top, *weights, *python, *({"config.json"} & set(sizes))})
