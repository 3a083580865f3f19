"""The directions of an SAE's features, from the checkpoints to the database."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa
import torch
from safetensors.torch import load_file, save_file

from extraction_assets.catalog import FEATURE_DIRECTIONS, assets_of_weights
from extraction_assets.database.tables import directions, feature_logits
from extraction_assets.engine.models.tokenizers.tokenizer import load_tokenizer
from extraction_assets.execution.keys import sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.directions.oracle import cosines_of
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_sae, make_settings


def with_head(folder: Path, **changes: Any) -> ExtractionSettings:
    """The tiny extraction, of a model whose head is tied to its embedding; ``model.safetensors`` has no other."""
    settings = make_settings(folder, **changes)
    config = folder / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
    return settings


def change(file: Path, **tensors: Any) -> None:
    """Puts ``tensors`` in the place of those of a file."""
    save_file(load_file(file) | tensors, file, {"format": "pt"})


def decoder_of(folder: Path, sae: str) -> torch.Tensor:
    return load_file(folder / sae / "sae_weights.safetensors")["W_dec"]


def direct(project: Project, sae: str = "relu") -> dg.ExecuteInProcessResult:
    return project.execute([sae_key(project.settings, sae, FEATURE_DIRECTIONS)])


def stored(project: Project, sae: str = "relu") -> tuple[Any, list[Any]]:
    """The row of an SAE's directions, and those of its features."""
    engine = sa.create_engine(project.url)
    with engine.connect() as connection:
        found = connection.execute(sa.select(directions).where(directions.c.sae == sae)).one()
        of_features = sa.select(feature_logits).where(feature_logits.c.directions_id == found.id)
        rows = list(connection.execute(of_features.order_by(feature_logits.c.neuron_index)))
    engine.dispose()
    return found, rows


def test_logits_are_those_of_norm_and_head_with_tokens_as_people_see_them(tmp_path: Path, home: Path) -> None:
    project = Project(with_head(tmp_path), home)
    direct(project)
    model, decoder = load_file(tmp_path / "model" / "model.safetensors"), decoder_of(tmp_path, "relu")
    logits = ((decoder * model["norm.weight"]) @ model["embed_tokens.weight"].t()).double().numpy()
    found, rows = stored(project)
    assert found.undefined is None
    assert found.norm.startswith(
        "LlamaRMSNorm model.norm: times its gain (weight); unembedded by embed_tokens.weight, to"
    )
    tokenizer = load_tokenizer(local(tmp_path / "model"))
    for row, expected in zip(rows, logits, strict=True):
        order = np.argsort(-expected, kind="stable")
        assert [token_id for token_id, _, _ in row.top] == order[:20].tolist()
        assert [token_id for token_id, _, _ in row.bottom] == order[::-1][:20].tolist()
        np.testing.assert_allclose([logit for *_, logit in row.top], expected[order[:20]], atol=1e-5)
        moments = (row.mean, row.std, row.minimum, row.maximum)
        np.testing.assert_allclose(
            moments, (expected.mean(), expected.std(), expected.min(), expected.max()), atol=1e-5
        )
        assert sum(row.histogram) == len(expected)
    token_id, token, _ = next(one for one in rows[0].top if tokenizer.decode([one[0]]).isalpha())
    assert token == tokenizer.decode([token_id])


def test_neighbours_are_those_of_the_sae_and_then_of_the_others(tmp_path: Path, home: Path) -> None:
    project = Project(with_head(tmp_path), home)
    direct(project)
    one, other = decoder_of(tmp_path, "relu"), decoder_of(tmp_path, "topk")
    within, across = cosines_of(one, one), cosines_of(one, other)
    np.fill_diagonal(within, -np.inf)
    _, rows = stored(project)
    for row, inside, outside in zip(rows, within, across, strict=True):
        wanted = [["relu", int(index)] for index in np.argsort(-inside)[:20]]
        wanted += [["topk", int(index)] for index in np.argsort(-outside)[:20]]
        assert [neighbour[:2] for neighbour in row.neighbours] == wanted
        np.testing.assert_allclose(
            [cosine for *_, cosine in row.neighbours[:20]], np.sort(inside)[::-1][:20], atol=1e-6
        )


def test_where_no_logit_lens_is_defined_neighbours_are(tmp_path: Path, home: Path) -> None:
    project = Project(make_settings(tmp_path), home)  # saved without a head
    direct(project)
    found, rows = stored(project)
    assert found.undefined == ("model.safetensors holds no lm_head.weight, and the token embedding is not tied to it")
    assert (found.norm, len(rows)) == ("", 48)
    assert all(row.top is row.bottom is row.histogram is row.mean is None for row in rows)
    assert len(rows[0].neighbours) == 40


def test_a_decoder_row_of_zeros_has_neither(tmp_path: Path, home: Path) -> None:
    project = Project(with_head(tmp_path), home)
    decoder = decoder_of(tmp_path, "relu")
    decoder[7] = 0
    change(tmp_path / "relu" / "sae_weights.safetensors", W_dec=decoder)
    direct(project)
    _, rows = stored(project)
    assert [row.neuron_index for row in rows if row.top is None] == [7]
    assert rows[7].neighbours == []
    assert [row.neuron_index for row in rows] == list(range(48))


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("layers.0.self_attn.o_proj.input", "is not part of the residual stream"),
        ("layers.0.input_layernorm", "is not part of the residual stream"),
    ],
)
def test_a_hook_outside_of_the_stream_says_why(tmp_path: Path, home: Path, hook: str, reason: str) -> None:
    saes = {"relu": {"path": str(tmp_path / "relu"), "hook": hook}}
    project = Project(with_head(tmp_path, saes=saes), home)
    direct(project)
    found, _ = stored(project)
    assert reason in found.undefined


def test_of_a_transcoder_what_it_writes_counts(tmp_path: Path, home: Path) -> None:
    path = str(make_sae(tmp_path / "transcoder", "transcoder", d_out=16))
    inside = {"path": path, "hook": "layers.0.post_attention_layernorm", "hook_out": "layers.0.mlp"}
    saes = {"inside": inside, "outside": {**inside, "hook_out": "layers.0.mlp.act_fn"}}
    project = Project(with_head(tmp_path, saes=saes), home)
    direct(project, "inside")
    direct(project, "outside")
    assert stored(project, "inside")[0].undefined is None
    assert "hook layers.0.mlp.act_fn is not part of" in stored(project, "outside")[0].undefined


def test_an_sae_of_another_width_is_compared_with_itself_alone(tmp_path: Path, home: Path) -> None:
    settings = with_head(tmp_path)
    narrow = {"path": str(make_sae(tmp_path / "narrow", d_in=8)), "hook": "layers.0"}
    saes = {**{name: sae.model_dump() for name, sae in settings.saes.items()}, "narrow": narrow}
    project = Project(make_settings(tmp_path, saes=saes), home)
    direct(project, "narrow")
    found, rows = stored(project, "narrow")
    assert found.undefined == "the SAE's decoder rows have 8 numbers, and the unembedding reads 16"
    assert {sae for row in rows for sae, *_ in row.neighbours} == {"narrow"}


def test_it_needs_no_corpus_and_replaces_what_was_there(tmp_path: Path, home: Path) -> None:
    project = Project(with_head(tmp_path), home)
    first = direct(project)
    change(tmp_path / "relu" / "sae_weights.safetensors", W_dec=-decoder_of(tmp_path, "relu"))
    before, old = stored(project)
    second = direct(project)
    after, new = stored(project)
    assert before.fingerprint != after.fingerprint
    assert [one[0] for one in old[0].top] == [one[0] for one in new[0].bottom]
    versions = [result.asset_materializations_for_node("tiny__relu__feature_directions") for result in (first, second)]
    assert [one[0].tags["dagster/data_version"] for one in versions] == [before.fingerprint, after.fingerprint]


def test_two_runs_give_the_same_rows(tmp_path: Path, home: Path) -> None:
    project = Project(with_head(tmp_path), home)
    direct(project)
    _, first = stored(project)
    direct(project)
    _, second = stored(project)
    assert [row[1:] for row in first] == [row[1:] for row in second]


def test_a_checkpoint_that_is_gone_is_one_clear_error(tmp_path: Path, home: Path) -> None:
    project = Project(with_head(tmp_path), home)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(dg.Failure, match=r"no checkpoint at .*/model: the folder does not exist"):
        direct(project)


def test_it_is_the_one_asset_of_weights() -> None:
    assert assets_of_weights() == [FEATURE_DIRECTIONS]


def test_a_merge_of_other_weights_removes_the_directions_of_the_earlier_ones(tmp_path: Path, home: Path) -> None:
    project = Project(with_head(tmp_path), home).merged()
    direct(project)
    project.merge("relu")
    assert project.rows("SELECT sae FROM directions") == [("relu",)]  # of the same weights they stay
    change(tmp_path / "relu" / "sae_weights.safetensors", W_dec=2 * decoder_of(tmp_path, "relu").roll(1, 0))
    Project(project.settings, home).merged()
    assert project.rows("SELECT sae FROM directions") == []
    assert project.rows("SELECT count(*) FROM feature_logits") == [(0,)]
