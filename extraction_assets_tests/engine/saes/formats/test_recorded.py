"""What a checkpoint records, beside what it is used on."""

import pytest

from extraction_assets.engine.saes.formats import SaeRecord, compare_recorded

RECORD = SaeRecord(
    hook="blocks.8.hook_resid_pre", model_name="gpt2-small", prepend_bos=True, context_size=128, dataset_path="text"
)


def test_what_agrees_gives_no_finding() -> None:
    assert compare_recorded(RECORD, "openai-community/gpt2", True, 128, "blocks.8.hook_resid_pre") == []
    assert compare_recorded(RECORD, "/models/gpt2/", None, 64, "h.7") == []


def test_what_is_not_recorded_is_not_compared() -> None:
    assert compare_recorded(SaeRecord(), "anything", False, 10**6, "h.7") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "gpt2-medium"}, "it was trained on model gpt2-small, but runs on gpt2-medium"),
        ({"prepend_bos": False}, "with a BOS token first: set corpus.prepend_bos: true to match"),
        ({"max_length": 129}, "samples of 128 positions; corpus.max_length is 129"),
    ],
)
def test_a_difference_is_one_warning(changes: dict[str, object], message: str) -> None:
    used = {"model_name": "gpt2", "prepend_bos": True, "max_length": 128, "hook": None, **changes}
    (finding,) = compare_recorded(RECORD, **used)  # type: ignore[arg-type]
    assert finding.severity == "warning"
    assert message in finding.message


def test_samples_without_bos_are_reported_where_a_tokenizer_would_add_one() -> None:
    (finding,) = compare_recorded(SaeRecord(prepend_bos=False), "x", None, 8)
    assert "without a BOS token first: set corpus.prepend_bos: false" in finding.message


def test_how_the_model_was_loaded_is_reported_where_it_has_no_effect() -> None:
    record = SaeRecord(model_from_pretrained_kwargs={"n_devices": 2, "revision": "step3000", "checkpoint_index": 7})
    (finding,) = compare_recorded(record, "x", True, 8)
    assert finding.severity == "warning"
    assert "checkpoint_index = 7, revision = 'step3000', which has no effect" in finding.message


@pytest.mark.parametrize(
    ("option", "hook"),
    [
        ("fold_value_biases", "blocks.1.attn.hook_z"),
        ("refactor_factored_attn_matrices", "blocks.1.attn.hook_z"),
        ("fold_ln", "blocks.1.ln2.hook_normalized"),
        ("fold_ln", "blocks.1.mlp.hook_in"),
    ],
)
def test_an_option_that_moves_what_stands_at_the_hook_is_an_error_there_alone(option: str, hook: str) -> None:
    record = SaeRecord(hook=hook, model_from_pretrained_kwargs={option: True})
    (finding,) = compare_recorded(record, "x", True, 8)
    assert (finding.severity, f"{hook} of a model loaded with {option}" in finding.message) == ("error", True)
    other = SaeRecord(hook="blocks.1.hook_resid_pre", model_from_pretrained_kwargs={option: True})
    assert compare_recorded(other, "x", True, 8) == []
