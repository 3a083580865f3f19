"""Trying a text: the tokens, masks and numbers of the extraction that it is tried with."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from extraction_assets.browser.live import MAX_CHARACTERS, LiveBusyError, LiveError, LiveResult
from extraction_assets.execution import live as live_module
from extraction_assets.execution.live import MAX_SAMPLES, TOKEN_FEATURES, LiveExtraction
from extraction_assets.host.gpu_lease import lease
from extraction_assets.resources import GpuResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_files import read_features
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import TEXTS, make_settings

LOGGER = logging.getLogger(__name__)
T = 16
TEXT = TEXTS["first.txt"]
"""Document number one of the corpus, so that its samples are the first ones."""


def open_live(settings: ExtractionSettings, home: Path, **gpu: Any) -> LiveExtraction:
    return LiveExtraction(settings, ChunkStore(home), GpuResource(**{"device": "cpu", **gpu}), LOGGER)


@pytest.fixture(scope="module")
def ran(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The chunks of the tiny extraction, in forward batches of 4 samples. Not to be changed."""
    settings = make_settings(tiny_folder, corpus={"source": str(tiny_folder / "texts"), "max_length": T})
    project = Project(settings, tmp_path_factory.mktemp("live") / "home", batch_size=4)
    project.corpus()
    project.chunks()
    return project


@pytest.fixture(scope="module")
def live(ran: Project) -> Iterator[LiveExtraction]:
    with open_live(ran.settings, ran.home) as opened:
        yield opened


def stored_firings(project: Project, sae: str, sample: int) -> dict[int, list[tuple[int, float]]]:
    """What the stored features of a sample hold at counted positions, strongest first, by position."""
    plan, chunk = project.plan, project.settings.chunks[0]
    rows, _ = read_features(plan.chunk_path("sae_features", chunk, sae), plan.features_fingerprint(chunk, sae))
    counted, found = plan.samples(chunk).counted[sample], {}
    for position in range(T):
        first, last = rows.row_pointers[sample * T + position : sample * T + position + 2].tolist()
        both = zip(rows.feature_ids[first:last].tolist(), rows.values[first:last].tolist(), strict=True)
        if counted[position] and last > first:
            found[position] = sorted(both, key=lambda one: (-one[1], one[0]))
    return found


def firings(result: LiveResult, sample: int) -> dict[int, list[tuple[int, float]]]:
    return {at: [*map(tuple, token.firings)] for at, token in enumerate(result.samples[sample]) if token.firings}


@pytest.mark.parametrize("sae", ["relu", "topk"])
def test_a_document_of_the_corpus_gives_its_stored_activations(ran: Project, live: LiveExtraction, sae: str) -> None:
    result = live(TEXT, sae)
    for sample in range(3):
        expected = {at: found[:TOKEN_FEATURES] for at, found in stored_firings(ran, sae, sample).items()}
        assert expected
        assert firings(result, sample) == expected


def test_the_tokens_of_a_document_are_those_of_its_samples(ran: Project, live: LiveExtraction) -> None:
    result, arrays = live(TEXT, "relu"), ran.plan.corpus.arrays
    for sample in range(3):
        ids = arrays.token_ids[sample][arrays.attention_mask[sample]].tolist()
        assert [token.token_id for token in result.samples[sample]] == ids


def test_the_numbers_say_that_they_are_comparable_with_the_stored_ones(live: LiveExtraction) -> None:
    assert live("a fox", "relu").numerics == (
        "computed as the stored chunks were: a text of the corpus gives the stored numbers"
    )


def test_numbers_of_another_device_say_what_differs(ran: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    record = live_module.stored_numerics(ran.plan, "relu")
    assert record is not None
    elsewhere = {**record, "device": "another GPU", "batch_size": 128}
    monkeypatch.setattr(live_module, "stored_numerics", lambda *_: elsewhere)
    with open_live(ran.settings, ran.home) as live:
        said = live("a fox", "relu").numerics
    assert said == (
        "last bits may differ from the stored numbers, which were computed with another batch_size, device, "
        "encode_tile_tokens"
    )


def test_without_stored_chunks_a_text_is_run_all_the_same(ran: Project, live: LiveExtraction, tmp_path: Path) -> None:
    with open_live(ran.settings, tmp_path) as alone:
        result = alone(TEXT, "relu")
    assert result.numerics.startswith("no chunk of the current settings is stored")
    expected = live(TEXT, "relu")
    for one, other in zip(result.samples[0], expected.samples[0], strict=True):
        assert dict(one.firings) == pytest.approx(dict(other.firings), rel=1e-4)


def test_a_token_that_does_not_count_has_no_features(live: LiveExtraction) -> None:
    first, *others = live("the lazy dog", "relu").samples[0]
    assert (first.text, first.counted, first.firings) == ("<|endoftext|>", False, [])
    assert all(token.counted and token.firings for token in others)


def test_the_strongest_features_of_a_text_are_maxima_over_its_tokens(live: LiveExtraction) -> None:
    result = live(TEXT, "topk")
    strongest: dict[int, float] = {}
    for sample in result.samples:
        for feature, value in (firing for token in sample for firing in token.firings):
            strongest[feature] = max(value, strongest.get(feature, 0.0))
    assert {one.neuron_index: one.max_activation for one in result.features} == strongest
    values = [one.max_activation for one in result.features]
    assert values == sorted(values, reverse=True)


def test_a_strongest_feature_has_every_token_on_which_it_fires(live: LiveExtraction) -> None:
    result = live(TEXT, "topk")
    for one in result.features:
        places = [
            (-firing.activation, sample, position)
            for sample, tokens in enumerate(result.samples)
            for position, token in enumerate(tokens)
            for firing in token.firings
            if firing.neuron_index == one.neuron_index
        ]
        assert [(-place.activation, place.sample, place.position) for place in one.places] == sorted(places)


def test_a_text_that_is_too_long_for_the_samples_is_cut_and_says_so(live: LiveExtraction) -> None:
    result = live(TEXT * 4, "relu")
    assert (len(result.samples), result.truncated) == (MAX_SAMPLES, True)
    assert not live("a fox", "relu").truncated


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "gives no token"),
        ("x" * (MAX_CHARACTERS + 1), "2,001 characters"),
        ("a \ud800", "not Unicode: character 2"),
    ],
)
def test_a_text_that_cannot_be_run_is_one_sentence(live: LiveExtraction, text: str, why: str) -> None:
    with pytest.raises(LiveError, match=why):
        live(text, "relu")


def test_an_sae_that_there_is_not_is_one_sentence(live: LiveExtraction) -> None:
    with pytest.raises(LiveError, match="no SAE 'x' in tiny: there are relu, topk"):
        live("a", "x")


def test_a_model_that_does_not_load_is_one_sentence_and_is_tried_again(
    ran: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_live(ran.settings, ran.home) as live:
        with monkeypatch.context() as patched:
            patched.setattr(live_module, "load_tokenizer", _raise(FileNotFoundError("model/tokenizer.json is gone")))
            with pytest.raises(LiveError, match=r"tiny/relu: model/tokenizer.json is gone"):
                live("a", "relu")
        assert live("a", "relu").features


def test_more_texts_than_can_wait_are_refused_at_once(ran: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_MOST_WAITING", 1)
    with open_live(ran.settings, ran.home) as live:
        first = live.submit("a fox", "relu")
        with pytest.raises(LiveBusyError, match="1 texts are computed or wait already"):
            live.submit("a dog", "relu")
        assert first.result().features
        assert live("a dog", "relu").features


def test_texts_run_one_after_the_other(live: LiveExtraction, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0
    run = live_module._Models.run

    def counted(self: Any, text: str, sae: str) -> LiveResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        result = run(self, text, sae)
        running -= 1
        return result

    monkeypatch.setattr(live_module._Models, "run", counted)
    for future in [live.submit("a fox", "relu") for _ in range(3)]:
        future.result()
    assert most == 1


def test_every_gpu_in_use_is_one_sentence(ran: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="GPU-live-test"))
    held = lease(["GPU-live-test"], LOGGER)
    with held, open_live(ran.settings, ran.home, device="auto") as live, pytest.raises(LiveError, match="are in use"):
        live("a fox", "relu")


def _raise(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sae", ["relu", "topk"])
def test_on_a_gpu_too_a_document_gives_its_stored_activations(tiny_folder: Path, tmp_path: Path, sae: str) -> None:
    settings = make_settings(tiny_folder, corpus={"source": str(tiny_folder / "texts"), "max_length": T})
    project = Project(settings, tmp_path / "home", device="cuda:0", batch_size=4)
    project.corpus()
    project.chunks()
    with open_live(settings, project.home, device="cuda:0") as live:
        result = live(TEXT, sae)
    assert result.numerics.startswith("computed as the stored chunks were")
    for sample in range(3):
        assert firings(result, sample) == {
            at: found[:TOKEN_FEATURES] for at, found in stored_firings(project, sae, sample).items()
        }
