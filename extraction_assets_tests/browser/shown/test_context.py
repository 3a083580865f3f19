"""An example in context: windows, shades, joined characters, special tokens, roles."""

import pytest

from extraction_assets.browser.shown.context import (
    SHADES,
    Context,
    ShownToken,
    context,
    is_special,
    shade_of,
    special_positions,
    title,
    window,
)
from extraction_assets.engine.corpora.message_spans import MessageSpan

LETTERS = [f" {chr(97 + at)}" for at in range(26)]


def around(tokens: list[str], firing: dict[int, float], width: int | None = 10, **more: object) -> Context:
    return context(tokens, list(firing), list(firing.values()), width=width, scale=4.0, **more)  # type: ignore[arg-type]


def text(one: Context) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in one.shown())


def shown(one: Context) -> list[ShownToken]:
    """Its tokens that are more than plain text."""
    return [part for part in one.shown() if not isinstance(part, str)]


@pytest.mark.parametrize(("middle", "place"), [(13, (3, 24)), (2, (0, 13)), (25, (15, 26)), (0, (0, 11))])
def test_a_window_ends_where_the_sample_does(middle: int, place: tuple[int, int]):
    found = around(LETTERS, {middle: 1.0})
    assert (found.first, found.stop) == place == window(26, middle, 10)


def test_the_whole_sample_has_every_token():
    found = around(LETTERS, {13: 1.0}, width=None)
    assert found.whole
    assert text(found) == "".join(LETTERS)


def test_a_cut_sample_says_so():
    assert not around(LETTERS, {13: 1.0}).whole


def test_a_window_stands_around_the_strongest_token_unless_another_is_asked_for():
    assert around(LETTERS, {20: 2.0, 3: 1.0}, width=1).first == 19
    assert around(LETTERS, {20: 2.0, 3: 1.0}, width=1, center=3).first == 2


def test_the_border_of_a_window_cuts_no_character():
    tokens = ["a", "\\xf0", "\\x9f\\x99", "\\x82", "b", "c"]
    found = around(tokens, {4: 1.0}, width=1)
    assert (found.first, text(found)) == (1, "🙂bc")


def test_a_joined_character_keeps_the_positions_of_its_tokens():
    found = around(["a", "\\xe2\\x80", "\\x9c"], {2: 3.0, 1: 1.0})
    [joined] = shown(found)
    assert (joined.position, joined.stop, joined.text, joined.strongest) == (1, 3, "“", True)
    assert [(one.position, one.token, one.activation) for one in joined.firings] == [
        (1, "\\xe2\\x80", 1.0),
        (2, "\\x9c", 3.0),
    ]
    assert joined.shade == shade_of(3.0, 4.0)
    assert title(joined) == "“ · positions 1 to 2 · \\xe2\\x80 1.00 at 1, \\x9c 3.00 at 2"


def test_of_equal_activations_the_first_in_the_list_is_the_strongest():
    found = around(LETTERS, {3: 2.0, 5: 2.0})
    assert [token.position for token in shown(found) if token.strongest] == [3]


def test_a_sample_without_firings_begins_at_its_start():
    found = around(LETTERS, {}, width=2)
    assert (found.first, found.stop, shown(found)) == (0, 3, [])


def test_a_sample_without_tokens_is_empty():
    found = around([], {})
    assert (found.first, found.stop, found.length, list(found.shown())) == (0, 0, 0, [])


@pytest.mark.parametrize(
    ("activation", "scale", "shade"),
    [
        (0.0, 4.0, 0),
        (1e-30, 4.0, 1),
        (0.21, 4.0, 2),
        (2.0, 4.0, SHADES // 2),
        (4.0, 4.0, SHADES),
        (9.0, 4.0, SHADES),
        (1.0, 0.0, SHADES),
    ],
)
def test_shades(activation: float, scale: float, shade: int):
    assert shade_of(activation, scale) == shade


@pytest.mark.parametrize(
    "token", ["<|endoftext|>", "<s>", "</s>", "<bos>", "<end_of_turn>", "[CLS]", "<|im_start|>", "<id 17>"]
)
def test_tokens_of_tokenizers_and_templates_look_special(token: str):
    assert is_special(token)


@pytest.mark.parametrize("token", [" <s>", "s", "<div>", "[0]", "<b>", "<|", ""])
def test_tokens_of_text_do_not(token: str):
    assert not is_special(token)


def test_where_the_ids_of_special_tokens_are_known_their_texts_say_nothing():
    tokens = ["<s>", "a", "b"]
    found = context(tokens, [], [], width=None, scale=1.0, special=special_positions(tokens, [7, 3, 5], {5}))
    assert [(token.position, token.special) for token in shown(found)] == [(2, True)]


def test_without_the_ids_their_texts_say_which_tokens_are_special():
    assert special_positions(["a", "<s>"], [7, 3], None) == (1,)
    assert [token.position for token in shown(context(["<s>", "a"], [], [], width=None, scale=1.0))] == [0]


def test_a_window_holds_the_tokens_as_they_are_stored():
    found = around(["a", "\\xe2\\x80", "\\x9c", "b", "c"], {2: 3.0, 4: 1.0}, width=1)
    assert (found.first, found.tokens) == (1, ("\\xe2\\x80", "\\x9c", "b"))
    assert (found.positions, found.activations) == ((2,), (3.0,))


def test_a_message_that_began_before_the_window_is_named_as_show_does():
    said = [MessageSpan("user", 0, 10), MessageSpan("assistant", 12, 26)]
    found = around(LETTERS, {12: 1.0}, width=4, messages=said)
    assert {token.position: token.role for token in shown(found) if token.role} == {8: "user …", 12: "assistant"}


def test_tokens_that_look_alike_are_one_run():
    runs = around(LETTERS[:6], {2: 4.0, 4: 1.0}).runs()
    assert [(run.segments[0].text, run.shade, run.strongest) for run in runs] == [
        (" a b", 0, False),
        (" c", SHADES, True),
        (" d", 0, False),
        (" e", 5, False),
        (" f", 0, False),
    ]


def test_white_space_over_several_tokens_is_one_sign():
    runs = around(["a", "\n", "  ", " ", "b", "!"], {5: 1.0}).runs()
    assert [segment.text for segment in runs[0].segments] == ["a", "⏎⇢", "b"]


def test_hovering_says_token_activation_and_position():
    run = around(["a", " pop"], {1: 9.666}).runs()[1]
    assert (run.title, run.spoken) == (" pop · 9.67 · position 1", "9.67")


def test_hidden_characters_of_a_token_are_written_out_on_hover():
    assert around(["\n"], {0: 1.0}).runs()[0].title == "⏎ · 1.00 · position 0"
