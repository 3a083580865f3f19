"""What goes stale with each field of the settings and of the GPU resource. The table below is the statement: a field
that is not in it fails, and so does a row whose field is gone.

Two columns. The fingerprint covers bytes: tokens, weights, masks. The code version is known when definitions load: it
covers the settings as they are written and a little of each checkpoint. Where the two differ, the row says why.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, ValidationError

from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.resources import GpuResource
from extraction_assets.settings import ExtractionSettings, SaeSettings
from extraction_assets.stores.chunk_record import read_record
from extraction_assets_tests.planning.matrix import HUB, PUBLISHED, Laboratory, connect_hub, make_world, stale
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


def of(asset: str, *saes: str) -> set[str]:
    return {f"{sae}/{asset}" for sae in saes}


def from_tables(*saes: str) -> set[str]:
    """The tables of SAEs and what is made from them."""
    return of("top_k_table", *saes) | from_merges(*saes)


def from_merges(*saes: str) -> set[str]:
    """The merged examples of SAEs and what is made from them."""
    merged = of("feature_examples", *saes) | of("feature_relations", *saes)
    return merged | of("feature_report", *saes) | of("feature_exports", *saes)


def from_features(*saes: str) -> set[str]:
    return of("sae_features", *saes) | from_tables(*saes)


BOTH = ("relu", "topk")
NOTHING: set[str] = set()
CORPUS = {"corpus"}
ACTIVATIONS = {"model_activations"}
CHUNKS = ACTIVATIONS | from_features(*BOTH)
EVERYTHING = CORPUS | CHUNKS
TABLES = from_tables(*BOTH)
MERGES = from_merges(*BOTH)
RELU = from_features("relu")
DIRECTIONS = of("feature_directions", *BOTH)
OF_RELU = of("feature_directions", "relu")
REPORTS = of("feature_report", *BOTH) | of("feature_exports", *BOTH)
"""They and the exports have no settings of their own: their code version stays, and Dagster sees their merge's new data
version."""


class Row(NamedTuple):
    """A field, a value other than the one of the extraction that it is set in, and what goes stale then."""

    field: str
    value: Any
    fingerprint: set[str]
    base: dict[str, Any] = {}
    """What is set before and after."""
    code: set[str] | None = None
    """None where it is the same assets; reports never are in it."""


TEXT_ROWS = {"corpus.source": "@rows.jsonl", "evaluation_samples": 20}
TOKEN_ROWS = {**TEXT_ROWS, "corpus.token_column": "ids", "corpus.attention_mask_column": "mask"}
CHAT_ROWS = {**TEXT_ROWS, "corpus.messages_column": "chat", "language_model.path": "@chat-model"}
JOINED = {"corpus.packing": "concatenated", "evaluation_samples": 16}
HUB_DATA = {"corpus.source": HUB}
HUB_MODEL = {"language_model.path": "someone/model"}
HUB_SAE = {"saes.path": "someone/sae"}
NAMED = {
    "saes.path": None,
    "saes.release": "gemma-2-2b-res-matryoshka-dc",
    "saes.sae_id": "blocks.0.hook_resid_post",
}
TRANSCODER = {"saes.path": "@transcoder", "saes.hook_out": "layers.1"}
BASIC = {"statistics": "basic"}
OWN_CODE = {"language_model.path": "@with-code"}

SETTINGS = (
    Row("name", "other", NOTHING),  # another extraction of equal content, in folders and rows of its own
    # The tokenizer of the other model is the same. Definitions do not know which of a model's files make tokens.
    Row("language_model.path", "@other-model", CHUNKS | DIRECTIONS, code=EVERYTHING | DIRECTIONS),
    Row("language_model.revision", "branch", CHUNKS | DIRECTIONS, HUB_MODEL, code=EVERYTHING | DIRECTIONS),
    Row("language_model.revision", "branch", NOTHING),  # of a folder
    Row("language_model.dtype", "float32", CHUNKS),
    Row("language_model.trust_remote_code", True, EVERYTHING | DIRECTIONS, OWN_CODE),
    Row("language_model.trust_remote_code", True, NOTHING),  # of a model without code of its own
    Row("corpus.source", "@other-texts", EVERYTHING),
    # The texts are read again and give the same tokens. Definitions cannot know that before.
    Row("corpus.source", "@equal-texts", CORPUS, code=EVERYTHING),
    Row("corpus.read_as", "text", CORPUS, code=EVERYTHING),
    Row("corpus.revision", "branch", EVERYTHING, HUB_DATA),
    Row("corpus.configuration", "other", EVERYTHING, HUB_DATA),
    Row("corpus.split", "test", EVERYTHING, HUB_DATA),
    Row("corpus.streaming", True, NOTHING, HUB_DATA),
    Row("corpus.streaming", True, EVERYTHING, {**HUB_DATA, "corpus.shuffle_seed": 1}),  # in a buffer: another order
    Row("corpus.text_column", "other_text", EVERYTHING, TEXT_ROWS),
    # Other names of the same documents: no number is another; the names in the database are compared by themselves.
    Row("corpus.id_column", "name", CORPUS, TEXT_ROWS, code=EVERYTHING),
    Row("corpus.token_column", "other_ids", EVERYTHING, TOKEN_ROWS),
    Row("corpus.attention_mask_column", None, EVERYTHING, TOKEN_ROWS),
    Row("corpus.messages_column", "other_chat", EVERYTHING, CHAT_ROWS),
    Row("corpus.shuffle_seed", 1, EVERYTHING, TEXT_ROWS),
    # The same tokens, with this tokenizer. It shows the tokens of the logit lens too.
    Row("corpus.tokenizer", "transformers", CORPUS | DIRECTIONS, code=EVERYTHING | DIRECTIONS),
    Row("corpus.packing", "concatenated", EVERYTHING, {"evaluation_samples": 16}),
    Row("corpus.sequence_separator_token", "none", EVERYTHING, JOINED),
    Row("corpus.max_length", 15, EVERYTHING),
    Row("corpus.prepend_bos", False, EVERYTHING),
    Row("corpus.drop_duplicates", True, EVERYTHING, TEXT_ROWS),
    Row("corpus.count_special_tokens", True, TABLES),
    Row("corpus.exclude_first_positions", 2, TABLES),
    Row("corpus.exclude_positions", [3], TABLES),
    Row("corpus.exclude_outlier_norms", 10.0, TABLES),
    # The nearest rows of an SAE are those of the others too, whose options leave their directions as they are.
    Row("saes.release", "gemma-2-2b-res-snap-matryoshka-dc", RELU | DIRECTIONS, NAMED),
    Row("saes.sae_id", "blocks.1.hook_resid_post", RELU | DIRECTIONS, NAMED),
    Row("saes.path", "@other-sae", RELU | DIRECTIONS),
    Row("saes.subfolder", "other", RELU | DIRECTIONS, {"saes.path": "@nested", "saes.subfolder": "sae"}),
    Row("saes.revision", "branch", RELU | DIRECTIONS, HUB_SAE),
    Row("saes.hook", "layers.2", ACTIVATIONS | RELU | OF_RELU),  # one file of activations holds every hook
    Row("saes.hook_out", "layers.2", ACTIVATIONS | RELU | OF_RELU, TRANSCODER),
    Row("saes.center_input", True, RELU | OF_RELU),
    Row("saes.norm_scaling_factor", 0.5, RELU | OF_RELU),
    Row("saes.fold_decoder_norm", True, RELU | OF_RELU),
    # Bounds that a chunk passes while it is computed: what is stored passed those of its time.
    Row("saes.minimum_variance_explained", 0.25, NOTHING),
    Row("saes.maximum_l0", 9.0, NOTHING),
    Row("saes.maximum_bos_share", 0.25, NOTHING),
    Row("evaluation_samples", 16, CORPUS | MERGES),  # the chunks that remain stay as they are
    # Chunks that remain hold the same samples. Definitions cannot know that before the corpus is read again.
    Row("start_sample", 4, CORPUS | MERGES, {"evaluation_samples": 12, "chunk_size": 4}, code=EVERYTHING),
    Row("chunk_size", 5, CHUNKS),
    Row("top_k_examples", 4, TABLES),
    Row("min_activation", 0.5, TABLES),
    Row("statistics", "basic", TABLES),
    Row("interval_examples", 2, TABLES),
    Row("random_examples", 2, TABLES),
    Row("draw_seed", 1, TABLES),
    Row("sample_one_in", 4, TABLES),
    *(
        Row(field, 3, NOTHING, BASIC)
        for field in ("interval_examples", "random_examples", "draw_seed", "sample_one_in")
    ),
    Row("maximum_intervals", 10, of("feature_relations", *BOTH)),
    Row("quantile_intervals", 10, of("feature_relations", *BOTH)),
    Row("top_positions", 2, NOTHING),  # how many positions previews name; all are stored
    Row("partitions_per_run", 1, NOTHING),
    Row("exports", ["jsonl"], NOTHING),
    Row("owners", ["team:a"], NOTHING),
    Row("schedule", "0 2 * * *", NOTHING),
    Row("keep.model_activations", False, NOTHING),
    Row("keep.sae_features", False, NOTHING),
)

ONE_VALUE_ALONE = {"keep.top_k_table": False}
"""Fields that allow no other value: this one is refused."""

GPU: dict[str, Any] = {
    "device": "cpu",
    "batch_size": 3,
    "vectorization_batch_size": 2,
    "vectorized": False,
    "num_workers": 1,
    "matmul_precision": "highest",
    "compile_model": True,
    "memory_budget_gb": 1.0,
}
"""Fields of the GPU resource, with a value other than the default. None makes anything stale: where one changes last
bits, the numerics record of a chunk says so."""


def fields(group: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields of settings; those of an SAE below ``saes``."""
    for name, field in group.model_fields.items():
        inside = SaeSettings if field.annotation == dict[str, SaeSettings] else field.annotation
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            yield from fields(inside, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("matrix")
    make_world(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        connect_hub(folder, monkeypatch)
        yield Laboratory(folder)


def test_every_field_of_the_settings_has_a_row() -> None:
    assert {row.field for row in SETTINGS} | set(ONE_VALUE_ALONE) == set(fields(ExtractionSettings))


def test_every_field_of_the_gpu_resource_has_a_value() -> None:
    assert set(GPU) == set(GpuResource.model_fields)
    assert all(value != getattr(GpuResource(), field) for field, value in GPU.items())


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: f"{row.field}={row.value}")
def test_exactly_these_assets_go_stale(laboratory: Laboratory, row: Row) -> None:
    before, after = laboratory.settings(row.base), laboratory.settings(row.base, {row.field: row.value})
    assert before != after
    assert stale(laboratory.fingerprints(before), laboratory.fingerprints(after)) == row.fingerprint
    code = row.fingerprint if row.code is None else row.code
    assert stale(laboratory.code_versions(before), laboratory.code_versions(after)) == code - REPORTS


INSIDE = "standard/blocks.0.hook_resid_post"
BY_PLACE = {"saes.path": PUBLISHED, "saes.subfolder": INSIDE}
COPIES = (
    {**NAMED, "saes.path": f"@hub/{PUBLISHED}/main"},
    {**NAMED, "saes.path": f"@hub/{PUBLISHED}/main/{INSIDE}"},
    {"saes.path": f"@hub/{PUBLISHED}/main", "saes.subfolder": INSIDE},
    {"saes.path": f"@hub/{PUBLISHED}/main/{INSIDE}"},
)


@pytest.mark.parametrize("place", [BY_PLACE, *COPIES])
def test_names_a_place_on_the_hub_and_a_copy_of_one_sae_are_equal(
    laboratory: Laboratory, place: dict[str, Any]
) -> None:
    named, placed = laboratory.settings(NAMED), laboratory.settings(place)
    assert laboratory.fingerprints(named) == laboratory.fingerprints(placed)
    # Definitions ask no hub for what its files hold.
    known = NAMED if place == BY_PLACE else COPIES[0]
    assert laboratory.code_versions(laboratory.settings(known)) == laboratory.code_versions(placed)


@pytest.mark.parametrize(("field", "value"), ONE_VALUE_ALONE.items())
def test_a_field_without_another_value_refuses_it(laboratory: Laboratory, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        laboratory.settings({}, {field: value})


@pytest.mark.slow
def test_no_field_of_the_gpu_resource_makes_anything_stale(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(LanguageModel, "compile_blocks", lambda model: compiled.append(model))
    settings = make_settings(tiny_folder)
    one, other = Project(settings, tmp_path / "one"), Project(settings, tmp_path / "other", **GPU)
    names, records = [], []
    for project in (one, other):
        project.corpus()
        project.chunks(2, 2)
        names.append(sorted(file for file in project.files("tiny/**/0*-*") if file.count(".") == 1))
        records.append(read_record(project.plan.chunk_path("top_k_table", settings.chunks[2], "relu"))["numerics"])
    assert names[0] == names[1]
    assert compiled
    assert [record["batch_size"] for record in records] == [128, 3]
    assert [record["matmul_precision"] for record in records] == ["high", "highest"]
