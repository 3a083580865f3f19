"""delphi: what its own loader reads is what the database counted, and what cannot be read by it is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from safetensors.numpy import load_file

from extraction_assets.database.connect import opened_database
from extraction_assets.database.queries.examples import examples_of
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.tables import features
from extraction_assets.engine.shapes import FeatureRows
from extraction_assets.exports.checkpoints_and_files import Declared
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.folders import export_folder_at
from extraction_assets.exports.formats import delphi
from extraction_assets.exports.formats.shared import delphi_cache
from extraction_assets.exports.formats.shared.delphi_cache import TooLargeError, firings_of, ranges
from extraction_assets.exports.output import MANIFEST
from extraction_assets.exports.source import ExportSource
from extraction_assets.exports.write_export import export
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.storage_urls import parse_storage_url
from extraction_assets_tests.exports.readers import read_by
from extraction_assets_tests.exports.written import Counted, write
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

SAMPLES, LENGTH = 23, 16

READ = """
    import json, sys, types
    for name in ("faiss", "sentence_transformers"):
        stub = types.ModuleType(name)
        stub.SentenceTransformer = object
        sys.modules[name] = stub
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents.loader import LatentDataset
    constructor = ConstructorConfig(example_ctx_len=8, min_examples=1, n_non_activating=2)
    sampler = SamplerConfig(n_examples_train=2, n_examples_test=2, n_quantiles=1)
    found = []
    for folder in sys.argv[1:]:
        read = LatentDataset(folder, sampler, constructor)
        latents = {}
        for buffer in read.buffers:
            for index, locations, activations in zip(*buffer.load_data_per_latent()):
                latents[int(index)] = [locations[:, :2].tolist(), activations.tolist()]
        found.append({
            "modules": read.modules, "latents": latents, "tokens": read.tokens.tolist(),
            "records": {record.latent.latent_index: record.per_token_frequency for record in read},
        })
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny extraction on full samples."""
    folder = tmp_path_factory.mktemp("packed")
    texts = {"source": str(folder / "texts"), "max_length": LENGTH, "packing": "concatenated"}
    return Project(make_settings(folder, corpus=texts), folder / "home").merged()


@pytest.fixture
def connection(packed: Project) -> Iterator[sa.Connection]:
    with opened_database(packed.url) as engine, engine.connect() as connection:
        yield connection


def source(
    packed: Project, connection: sa.Connection, sae: str = "relu", features: list[int] | None = None
) -> ExportSource:
    declared = Declared(packed.settings, ChunkStore(packed.home))
    return ExportSource(connection, find_extraction(connection, "tiny", sae), features, declared)


def token_counts(connection: sa.Connection, sae: str = "relu") -> dict[int, int]:
    """Tokens on which each feature fires, without those that never do."""
    query = sa.select(features.c.neuron_index, features.c.token_count)
    found = connection.execute(query.where(features.c.extraction_id == find_extraction(connection, "tiny", sae).id))
    return {index: count for index, count in found if count}


@pytest.fixture(scope="module")
def read_by_delphi(packed: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What delphi reads in one process, which spends five seconds on imports: an SAE in several files; two SAEs in a
    folder; two features alone."""
    out = tmp_path_factory.mktemp("exports")
    with opened_database(packed.url) as engine, engine.connect() as connection, pytest.MonkeyPatch.context() as patch:
        for sae in ("relu", "topk"):
            write(source(packed, connection, sae), "delphi", out / "two")
        write(source(packed, connection, features=_chosen(connection)), "delphi", out / "chosen")
        patch.setattr(delphi, "_FIRINGS_IN_FILE", 300)
        write(source(packed, connection), "delphi", out / "several")
    assert len(list((out / "several" / "layers.0").glob("*.safetensors"))) > 2
    names = ("several", "two", "chosen")
    return dict(zip(names, read_by(READ, *(out / name for name in names), package="delphi"), strict=True))


def _chosen(connection: sa.Connection) -> list[int]:
    return sorted(token_counts(connection))[2:4]


def test_delphi_reads_every_firing_that_was_counted(read_by_delphi: dict[str, Any], connection: sa.Connection) -> None:
    read = read_by_delphi["several"]
    assert read["modules"] == ["layers.0"]
    assert {int(index): len(found[1]) for index, found in read["latents"].items()} == token_counts(connection)
    assert read["records"].keys() == read["latents"].keys()
    for index, count in token_counts(connection).items():
        assert read["records"][str(index)] == pytest.approx(count / (SAMPLES * LENGTH))


def test_delphi_reads_the_examples_of_the_database(read_by_delphi: dict[str, Any], connection: sa.Connection) -> None:
    read = read_by_delphi["several"]
    for index in token_counts(connection):
        locations, activations = read["latents"][str(index)]
        at = {tuple(location): value for location, value in zip(locations, activations, strict=True)}
        for one in examples_of(connection, find_extraction(connection, "tiny", "relu").id, index):
            found = [at[one.sample_index, position] for position in one.positions]
            assert found == [float(np.float16(value)) for value in one.activations]
            assert read["tokens"][one.sample_index][: len(one.token_ids)] == list(one.token_ids)


def test_two_saes_share_a_folder(read_by_delphi: dict[str, Any]) -> None:
    read = read_by_delphi["two"]
    assert sorted(read["modules"]) == ["layers.0", "layers.1"]


def test_the_files_are_those_of_the_layout(packed: Project, connection: sa.Connection, tmp_path: Path) -> None:
    write(source(packed, connection), "delphi", tmp_path / "out", splits="5", module="layer")
    found = sorted((tmp_path / "out" / "layer").glob("*.safetensors"), key=lambda path: int(path.stem.split("_")[0]))
    assert [path.stem for path in found] == ["0_8", "9_18", "19_27", "28_37", "38_47"]
    tensors = load_file(found[1])
    assert {name: (array.dtype.name, array.ndim) for name, array in tensors.items()} == {
        "locations": ("uint16", 2),
        "activations": ("float16", 1),
        "tokens": ("int64", 2),
    }
    assert tensors["locations"][:, 2].max() < 10
    assert tensors["tokens"].shape == (SAMPLES, LENGTH)


def test_chosen_features_alone_are_there(read_by_delphi: dict[str, Any], connection: sa.Connection) -> None:
    assert [int(index) for index in read_by_delphi["chosen"]["latents"]] == _chosen(connection)


def test_an_export_that_goes_on_gives_the_same_files(
    packed: Project, connection: sa.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delphi, "_FIRINGS_IN_FILE", 300)
    folder = write(source(packed, connection), "delphi", tmp_path / "out").folder / "layers.0"
    before = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    for name in sorted(before)[::2]:
        (folder / name).unlink()
    assert write(source(packed, connection), "delphi", tmp_path / "out").written == len(sorted(before)[::2])
    assert {path.name: path.read_bytes() for path in folder.glob("*.safetensors")} == before


def test_files_in_storage_are_those_of_a_folder(packed: Project, connection: sa.Connection, tmp_path: Path) -> None:
    folder = write(source(packed, connection), "delphi", tmp_path / "out").folder / "layers.0"
    url = f"memory://{tmp_path.name}/out"
    export(source(packed, connection), "delphi", export_folder_at(url), Counted())
    stored = RemoteFolder(parse_storage_url(f"{url}/layers.0"))
    names = {path.name for path in folder.iterdir()} - {MANIFEST}
    assert {name: stored.read(name) for name in names} == {name: (folder / name).read_bytes() for name in names}
    assert {"config.json", "0_47.safetensors"} <= names


def test_samples_that_are_not_full_are_refused(project: Project, tmp_path: Path) -> None:
    refused = pytest.raises(ExportError, match=r"delphi reads full samples alone, and sample \d+ of tiny/relu ends")
    with opened_database(project.url) as engine, engine.connect() as connection, refused:
        write(source(project, connection), "delphi", tmp_path / "out")


def test_a_result_whose_features_are_not_stored_is_refused(
    packed: Project, connection: sa.Connection, tmp_path: Path
) -> None:
    found = source(packed, connection)
    found.declared = Declared(packed.settings, ChunkStore(tmp_path / "empty"))
    with pytest.raises(
        ExportError, match="not its strongest examples, and the SAE features of tiny/relu are not stored"
    ):
        write(found, "delphi", tmp_path / "out")


def test_a_result_that_is_not_declared_is_refused(packed: Project, connection: sa.Connection, tmp_path: Path) -> None:
    undeclared = ExportSource(connection, find_extraction(connection, "tiny", "relu"))
    with pytest.raises(ExportError, match="stored sae_features of tiny/relu, which this project does not declare"):
        write(undeclared, "delphi", tmp_path / "out")


def test_a_maximum_that_float16_does_not_hold_is_refused(
    packed: Project, connection: sa.Connection, tmp_path: Path
) -> None:
    (index, *_) = token_counts(connection)
    at = (features.c.extraction_id == find_extraction(connection, "tiny", "relu").id) & (
        features.c.neuron_index == index
    )
    connection.execute(sa.update(features).where(at).values(max_activation=65_505.0))  # never committed
    with pytest.raises(
        ExportError, match=rf"feature {index} has an activation of 65,505 in tiny/relu, .* at most 65,504"
    ):
        write(source(packed, connection), "delphi", tmp_path / "out")


@pytest.mark.parametrize("setting", [{"module": ".."}, {"module": "a/b"}, {"splits": "0"}, {"splits": "many"}])
def test_options_that_mean_nothing_are_refused(
    packed: Project, connection: sa.Connection, tmp_path: Path, setting: dict[str, str]
) -> None:
    with pytest.raises(ExportError, match=next(iter(setting))):
        write(source(packed, connection), "delphi", tmp_path / "out", **setting)


def rows_of(ids: list[int], values: list[float]) -> FeatureRows:
    """One sample of two positions with all firings at the second."""
    pointers = torch.tensor([0, 0, len(ids)])
    return FeatureRows(pointers, torch.tensor(ids, dtype=torch.int32), torch.tensor(values), 1, 2, 10)


def firings(rows: FeatureRows, features: range, **changes: Any) -> list[list[float]]:
    counted = changes.get("counted", np.ones((1, 2), dtype=bool))
    chosen = np.ones(10, dtype=bool)
    parts = firings_of(rows, counted, 70_000, features, chosen, np.dtype(np.uint32))
    return [
        [*map(int, one), float(value)]
        for found in parts
        for one, value in zip(found.locations, found.activations, strict=True)
    ]


def test_parts_are_in_the_order_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of([2, 3, 5, 6], [1.0, 2.0, 3.0, 4.0])
    whole = firings(rows, range(10))
    monkeypatch.setattr(delphi_cache, "_FIRINGS_AT_ONCE", 3)
    assert firings(rows, range(10)) == whole
    assert len(whole) == 4


def test_latents_count_from_the_start_of_their_file() -> None:
    assert firings(rows_of([2, 3, 5, 6], [1.0, 2.0, 3.0, 4.0]), range(3, 6)) == [
        [70_000, 1, 0, 2.0],
        [70_000, 1, 2, 3.0],
    ]


def test_positions_that_do_not_count_are_left_out() -> None:
    assert firings(rows_of([3], [1.0]), range(10), counted=np.array([[True, False]])) == []


def test_an_activation_never_becomes_silence() -> None:
    assert firings(rows_of([3], [1e-12]), range(10)) == [[70_000, 1, 3, 2.0**-24]]


def test_the_largest_number_of_float16_is_kept_and_the_next_one_is_refused() -> None:
    assert firings(rows_of([3], [65_504.0]), range(10))[0][-1] == 65_504.0
    with pytest.raises(TooLargeError, match=r"feature 3 has an activation of 65,504\.00"):
        firings(rows_of([3], [float(np.nextafter(np.float32(65_504), np.float32(np.inf)))]), range(10))


def test_files_hold_so_many_firings_or_one_feature() -> None:
    assert ranges(np.array([3, 3, 9, 0, 1]), 6, longest=5) == [range(2), range(2, 3), range(3, 5)]
    assert ranges(np.zeros(4, dtype=np.int64), 6, longest=4) == [range(4)]


def test_files_hold_so_many_features() -> None:
    assert ranges(np.zeros(5, dtype=np.int64), 6, longest=2) == [range(2), range(2, 4), range(4, 5)]
