"""Sparse activations of features from the files of a chunk store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from extraction_assets.planning.stored_result import StoredFeatures
from extraction_assets.python_api.errors import NotComputedError
from extraction_assets.python_api.whole_numbers import whole_number
from extraction_assets.settings import Chunk

if TYPE_CHECKING:
    import torch

Form = Literal["scipy", "torch"]
FORMS: tuple[Form, ...] = get_args(Form)


class _Rows(NamedTuple):
    """Firings in compressed rows."""

    pointers: np.ndarray
    """int64 [R + 1]"""
    columns: np.ndarray
    """int64 [Z]"""
    values: np.ndarray
    """float32 [Z]"""


def chosen_chunks(stored: StoredFeatures, chunk: "int | str | None") -> list[Chunk]:
    """All chunks, or the one of a number from 0 on or of a partition key. Raises ValueError for one that there is not,
    TypeError for what is neither."""
    chunks = stored.settings.chunks
    if chunk is None:
        return chunks
    given = chunk if isinstance(chunk, str) else whole_number(chunk, "chunk")
    found = [one for number, one in enumerate(chunks) if given in (number, one.key)]
    if not found:
        raise ValueError(
            f"there is no chunk {chunk!r}: there are numbers 0 to {len(chunks) - 1}, keys {chunks[0].key} to "
            f"{chunks[-1].key}"
        )
    return found


def feature_activations(
    stored: StoredFeatures, neuron_index: int, chunks: Sequence[Chunk], form: Form, *, counted: bool
) -> Any:
    """Activations of one feature [samples, positions] over some chunks, read one after the other."""
    parts = [_of_feature(stored, chunk, neuron_index, counted=counted) for chunk in chunks]
    pointers, offset = [np.zeros(1, dtype=np.int64)], 0
    for part in parts:
        pointers.append(part.pointers[1:] + offset)
        offset += len(part.values)
    rows = _Rows(
        np.concatenate(pointers),
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.values for part in parts]),
    )
    return _matrix(rows, stored.settings.corpus.max_length, form)


def chunk_activations(stored: StoredFeatures, chunk: Chunk, form: Form, *, counted: bool) -> Any:
    """Activations of all features [samples * positions, features] in one chunk."""
    features = stored.read(chunk)
    rows = _Rows(features.row_pointers.numpy(), features.feature_ids.numpy(), features.values.numpy())
    if counted:
        kept = _is_counted(stored, chunk)[_row_of_each(rows.pointers)]
        rows = _kept(rows, kept)
    return _matrix(rows, features.num_features, form)


def refuse_uncounted(stored: StoredFeatures, name: str) -> None:
    """Raises NotComputedError where stored features do not say which positions count."""
    if stored.settings.corpus.exclude_outlier_norms is not None:
        raise NotComputedError(
            f"which positions of {name} are outliers (exclude_outlier_norms) is not stored: pass counted=False for "
            "the activations at all positions"
        )


def _of_feature(stored: StoredFeatures, chunk: Chunk, neuron_index: int, *, counted: bool) -> _Rows:
    """One feature's firings in a chunk, a row a sample."""
    features = stored.read(chunk)
    at = np.flatnonzero(features.feature_ids.numpy() == neuron_index)
    tokens = np.searchsorted(features.row_pointers.numpy(), at, "right") - 1
    values = features.values.numpy()[at]
    if counted:
        kept = _is_counted(stored, chunk)[tokens]
        tokens, values = tokens[kept], values[kept]
    samples, positions = np.divmod(tokens, features.num_positions)
    return _Rows(np.searchsorted(samples, np.arange(features.num_samples + 1)), positions, values)


def _is_counted(stored: StoredFeatures, chunk: Chunk) -> np.ndarray:
    """bool [samples * positions]"""
    return stored.samples(chunk).counted.numpy().reshape(-1)


def _row_of_each(pointers: np.ndarray) -> np.ndarray:
    """int64 [Z]"""
    return np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))


def _kept(rows: _Rows, kept: np.ndarray) -> _Rows:
    """Some of the firings, in rows as before."""
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])
    return _Rows(before[rows.pointers], rows.columns[kept], rows.values[kept])


def _matrix(rows: _Rows, width: int, form: Form) -> Any:
    shape = (len(rows.pointers) - 1, width)
    if form == "torch":
        return _torch_matrix(rows, shape)
    try:
        from scipy.sparse import csr_array
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scipy is not installed: install it, or ask for a sparse tensor: form='torch'", name="scipy"
        ) from error
    return csr_array((rows.values, rows.columns, rows.pointers), shape=shape)


def _torch_matrix(rows: _Rows, shape: tuple[int, int]) -> "torch.Tensor":
    import warnings

    import torch

    pointers, columns, values = (torch.from_numpy(np.array(part)) for part in rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(pointers, columns.long(), values, size=shape, check_invariants=True)
