"""A real extraction of a transcoder over hostile text, and one display token that is empty."""

from pathlib import Path

import sqlalchemy as sa

from extraction_assets.database.connect import opened_database
from extraction_assets.database.tables import samples
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_language_model, make_sae

TEXT = (
    "quotes \" and ' and \\ and \\n; NUL \0 and \x1b[2J, \u2028 and \u202e; <b>&amp;</b>, "
    "naïve 😀 ünï \ufffd \u200b and a tab\there.\r\n" * 6
)


def hostile_settings(folder: Path) -> ExtractionSettings:
    """An extraction of the transcoder ``mlp`` at the first block's MLP."""
    make_language_model(folder / "model")
    (folder / "texts").mkdir()
    (folder / "texts" / 'a "quoted" name.txt').write_text(TEXT, "utf-8")
    make_sae(folder / "transcoder", "transcoder", seed=4)
    return ExtractionSettings.model_validate(
        {
            "name": "hostile",
            "language_model": {"path": str(folder / "model")},
            "corpus": {"source": str(folder / "texts"), "max_length": 16},
            "saes": {
                "mlp": {
                    "path": str(folder / "transcoder"),
                    "hook": "layers.1.post_attention_layernorm",
                    "hook_out": "layers.1.mlp",
                    "minimum_variance_explained": -1e9,  # a random transcoder gives back nothing
                }
            },
            "evaluation_samples": 12,
            "chunk_size": 6,
            "top_k_examples": 6,
        }
    )


def make_hostile(folder: Path) -> Project:
    """The extraction with relations and directions; the first token of every sample shows as nothing, which
    tokenizers other than the tiny one have tokens for."""
    project = Project(hostile_settings(folder), folder / "home").everything()
    project.relations_and_directions()
    with opened_database(project.url) as engine, engine.begin() as connection:
        for index, tokens in connection.execute(sa.select(samples.c.sample_index, samples.c.tokens)).all():
            query = sa.update(samples).where(samples.c.sample_index == index)
            connection.execute(query.values(tokens=["", *tokens[1:]]))
    return project
