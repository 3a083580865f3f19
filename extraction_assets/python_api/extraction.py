"""One (extraction, SAE): frames of its features, examples, samples and neighbours, its activations and its weights."""

from typing import TYPE_CHECKING, Any, Literal, overload

import sqlalchemy as sa

from extraction_assets.database.queries.examples import find_feature
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.planning.stored_result import MergedResult, StoredFeatures, find_stored_features
from extraction_assets.python_api import reading
from extraction_assets.python_api.errors import NotComputedError
from extraction_assets.python_api.firings import FORMS, Form, chosen_chunks
from extraction_assets.python_api.source import Source
from extraction_assets.python_api.whole_numbers import whole_number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import scipy.sparse
    import torch

    from extraction_assets.database.queries.search import FoundBy
    from extraction_assets.engine.saes.sae import SAE


class ExtractionResults:
    """The results of one SAE.

    What is not computed raises NotComputedError, which says what to do; a feature or a sample that is not there raises
    UnknownResultError.
    """

    _outlives_its_checkpoints = True
    """Whether model and SAE may have been replaced since the result was made."""

    _advice = reading.Advice()

    def __init__(self, source: Source, extraction: str, sae: str) -> None:
        self._source = source
        self.extraction, self.sae = extraction, sae
        self._weights: SAE | None = None
        self._stored: tuple[str, StoredFeatures] | None = None

    @property
    def name(self) -> str:
        """``extraction/sae``"""
        return f"{self.extraction}/{self.sae}"

    def close(self) -> None:
        """Lets go of weights and of what is known of files; they are read again where they are asked for."""
        self._weights = self._stored = None

    def __repr__(self) -> str:
        if self._source.is_closed:
            return f"<{type(self).__name__} {self.name}: closed>"
        with self._source.connection() as connection:
            row = self._row(connection)
        sizes = f"{row.latent_dim:,} features, {row.sample_count:,} samples"
        return f"<{type(self).__name__} {self.name}: {row.hook}, {sizes}>"

    def description(self) -> "pd.Series[Any]":
        """What the result is of: model, hook, sizes, settings, when it was merged."""
        with self._source.connection() as connection:
            return reading.description(self._row(connection))

    def features(self) -> "pd.DataFrame":
        """All statistics of every feature, by ``neuron_index``; columns as docs/database.md has them."""
        from extraction_assets.database.queries.frames import feature_table

        with self._source.connection() as connection:
            return feature_table(connection, self._row(connection).id, lists=True)

    def examples(self, neuron_index: int, limit: int | None = None) -> "pd.DataFrame":
        """The strongest examples of a feature by ``rank``, all that are stored or the first ``limit``.

        ``tokens`` has one text for each token of the sample and ``values`` the activation on it, 0 where the feature
        does not fire; ``positions`` and ``activations`` are the firings alone, strongest first. A notebook shows the
        texts as ``browse`` does.
        """
        from extraction_assets.python_api.example_frames import examples_frame

        neuron_index = whole_number(neuron_index, "neuron_index")
        with self._source.connection() as connection:
            return examples_frame(connection, self._row(connection), neuron_index, limit)

    def draws(self, neuron_index: int) -> "pd.DataFrame":
        """Examples drawn from a feature's whole range of activations, by ``interval`` and ``rank``; those of -1 are
        from all samples in which it fires. Columns as ``examples``."""
        from extraction_assets.python_api.example_frames import draws_frame

        neuron_index = whole_number(neuron_index, "neuron_index")
        with self._source.connection() as connection:
            return draws_frame(connection, self._row(connection), neuron_index)

    def search(self, text: str, by: "FoundBy | None" = None, limit: int = 50) -> "pd.DataFrame":
        """Features by what somebody types into the search of ``browse``, most ``hits`` first: a token, a text that
        stands in their examples, a label, or ``#12``.

        ``by`` is ``token``, ``text`` or ``label``; by default the first of them that finds anything.
        ``.attrs["found_by"]`` says which, ``.attrs["hits"]`` what the hits count.
        """
        from extraction_assets.python_api.searching import search_frame

        with self._source.connection() as connection:
            return search_frame(connection, self._row(connection), text, by, limit)

    def sample(self, sample_index: int) -> "pd.DataFrame":
        """The tokens of a stored sample by ``position``, each with the stored features that fire on it, the one nearest
        to its own maximum first, and their activations."""
        from extraction_assets.python_api.sample_frames import sample_frame

        sample_index = whole_number(sample_index, "sample_index")
        with self._source.connection() as connection:
            return sample_frame(connection, self._row(connection), sample_index)

    def neighbours(self, neuron_index: int, by: Literal["firing", "decoder"] = "firing") -> "pd.DataFrame":
        """The features that fire together with a feature, or with ``by="decoder"`` those with the nearest decoder rows,
        of all SAEs of the extraction; nearest first."""
        neuron_index = whole_number(neuron_index, "neuron_index")
        with self._source.connection() as connection:
            return reading.neighbours(connection, self._row(connection), neuron_index, by, self._advice)

    def tokens(self, neuron_index: int, place: Literal["firing", "next"] = "firing") -> "pd.DataFrame":
        """The tokens on which a feature fires most often, or with ``place="next"`` those that follow."""
        neuron_index = whole_number(neuron_index, "neuron_index")
        with self._source.connection() as connection:
            return reading.tokens(connection, self._row(connection), neuron_index, place, self._advice)

    def logits(self, neuron_index: int) -> "pd.DataFrame":
        """The tokens that a feature's decoder row promotes most, then those that it suppresses most (logit lens)."""
        neuron_index = whole_number(neuron_index, "neuron_index")
        with self._source.connection() as connection:
            return reading.logits(connection, self._row(connection), neuron_index, self._advice)

    def flags(self, neuron_index: int) -> dict[str, Any]:
        """Flag -> its details: dead, dense, duplicate, first_position, one_token."""
        neuron_index = whole_number(neuron_index, "neuron_index")
        with self._source.connection() as connection:
            return reading.flags(connection, self._row(connection), neuron_index, self._advice)

    def labels(self) -> "pd.DataFrame":
        """What people have written about features: label, mark and note by ``neuron_index``."""
        with self._source.connection() as connection:
            return reading.labels(connection, self.extraction, self.sae)

    @overload
    def activations(
        self,
        neuron_index: int | None = None,
        *,
        chunk: int | str | None = None,
        form: Literal["scipy"] = "scipy",
        counted: bool = True,
    ) -> "scipy.sparse.csr_array": ...

    @overload
    def activations(
        self,
        neuron_index: int | None = None,
        *,
        chunk: int | str | None = None,
        form: Literal["torch"],
        counted: bool = True,
    ) -> "torch.Tensor": ...

    def activations(
        self,
        neuron_index: int | None = None,
        *,
        chunk: int | str | None = None,
        form: Form = "scipy",
        counted: bool = True,
    ) -> "scipy.sparse.csr_array | torch.Tensor":
        """Activations from stored SAE features in compressed sparse rows: a scipy ``csr_array``, or a torch tensor.

        Of one feature [samples, positions] over the corpus or one ``chunk`` (its number or key), files read one after
        the other; or, without ``neuron_index``, of all features of a chunk [samples * positions, features]. Row 0 is
        the first sample of the extraction, or of the chunk. ``counted=False`` keeps positions that do not count in
        results, such as special tokens.

        Raises NotStoredError if the files that this result was made from are not in the store; DamagedFileError.
        """
        from extraction_assets.python_api.firings import chunk_activations, feature_activations, refuse_uncounted

        if neuron_index is not None:
            neuron_index = whole_number(neuron_index, "neuron_index")
        elif chunk is None:
            raise ValueError("name a feature, or one chunk for all features: activations(3445), activations(chunk=0)")
        if form not in FORMS:
            raise ValueError(f"form is {form!r}, not one of {', '.join(FORMS)}")
        stored = self._stored_features(neuron_index)
        chunks = chosen_chunks(stored, chunk)
        if counted:
            refuse_uncounted(stored, self.name)
        if neuron_index is None:
            return chunk_activations(stored, chunks[0], form, counted=counted)
        return feature_activations(stored, neuron_index, chunks, form, counted=counted)

    def decoder(self, neuron_index: int) -> "np.ndarray[Any, Any]":
        """float32 [d_out]: what a feature adds to the reconstruction for every unit of its activation, before an input
        normalisation is undone. Reads the SAE's checkpoint and keeps it until ``close``."""
        rows = self._loaded_sae(neuron_index).decoder
        if rows is None:
            raise NotComputedError(f"{self.name} encodes only: it has no decoder")
        return rows[neuron_index].numpy().copy()

    def encoder(self, neuron_index: int) -> "np.ndarray[Any, Any]":
        """float32 [d_in]: what a feature reads, of the input as the SAE prepares it. As ``decoder``."""
        return self._loaded_sae(neuron_index).encoder[:, neuron_index].numpy().copy()

    def _row(self, connection: sa.Connection) -> sa.Row[Any]:
        """What the database says now. Raises UnknownResultError if the result was removed meanwhile."""
        return find_extraction(connection, self.extraction, self.sae)

    def _found(self, neuron_index: int | None) -> sa.Row[Any]:
        """As ``_row``, after refusing a feature that is not there."""
        with self._source.connection() as connection:
            row = self._row(connection)
            if neuron_index is not None:
                find_feature(connection, row.id, neuron_index)
        return row

    def _loaded_sae(self, neuron_index: int) -> "SAE":
        from extraction_assets.python_api.weights import load_sae_of, refuse_replaced

        row = self._found(whole_number(neuron_index, "neuron_index"))
        if self._weights is None:
            loaded = load_sae_of(self.name, (row.settings.get("saes") or {}).get(self.sae), row.latent_dim)
            if self._outlives_its_checkpoints:
                refuse_replaced(self.name, row, self._source.store)
            self._weights = loaded
        return self._weights

    def _stored_features(self, neuron_index: int | None) -> StoredFeatures:
        row = self._found(neuron_index)
        if self._stored is None or self._stored[0] != row.fingerprint:
            merged = MergedResult(self.extraction, self.sae, row.settings, row.fingerprint)
            self._stored = row.fingerprint, find_stored_features(self._source.store, merged)
        return self._stored[1]
