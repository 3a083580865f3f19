"""An example as people read it: a window of tokens around the strongest one, shaded by activation.

Pure: from the rows of the database to named tuples, without HTML. Ids and positions are never changed; only what is
shown is joined (characters split over tokens) or marked (white space).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import markupsafe

from extraction_assets.browser.rendering import three_digits
from extraction_assets.browser.shown.characters import Unit, display_units
from extraction_assets.browser.shown.runs import Run, runs_markup
from extraction_assets.browser.shown.whitespace import segments
from extraction_assets.engine.corpora.message_spans import MessageSpan, speakers
from extraction_assets.engine.corpora.visible_text import visible

SHADES = 20
"""How many shades of a token the style sheet has: the policy of the pages allows no style of a token's own."""

_SPECIAL = re.compile(
    r"<\|[^\s<>]+\|>|<｜[^\s<>]+｜>|</?s>|<(?:bos|eos|pad|unk|mask|sep|cls|(?:start|end)_of_(?:turn|text|image))>"  # noqa: RUF001
    r"|\[(?:BOS|EOS|PAD|UNK|MASK|SEP|CLS|/?INST)\]|<id [0-9]+>",
)

_MARGIN = 8


class Firing(NamedTuple):
    """One token on which a feature fires."""

    position: int
    token: str
    activation: float


class ShownToken(NamedTuple):
    """What is shown in one place: a token, or tokens that hold parts of the same characters."""

    position: int
    """Of its first token."""
    stop: int
    """One past its last token."""
    text: str
    firings: tuple[Firing, ...]
    """Those of its tokens on which the feature fires, by position."""
    shade: int
    """0 where it does not fire, up to ``SHADES`` for the scale's end."""
    strongest: bool
    """Whether it holds the sample's strongest token."""
    special: bool
    """Whether it looks like a token that the tokenizer or a template adds."""
    role: str
    """Who speaks from here on, where a message of a chat begins; as ``show`` writes it."""


class Context(NamedTuple):
    """A window of a sample."""

    first: int
    stop: int
    length: int
    """Tokens of the whole sample."""
    tokens: tuple[ShownToken, ...]

    @property
    def whole(self) -> bool:
        """Whether it is the whole sample."""
        return self.first == 0 and self.stop == self.length

    def markup(
        self, marks: bool = False, lines: bool = False, notes: Mapping[int, str] | None = None
    ) -> markupsafe.Markup:
        """The window as HTML; see ``runs``. With ``notes`` each token that they name is a link to its position."""
        return runs_markup(self.runs(marks, lines, notes), linked=notes is not None)

    def runs(self, marks: bool = False, lines: bool = False, notes: Mapping[int, str] | None = None) -> list[Run]:
        """The window for a page; ``marks`` and ``lines`` are those of ``whitespace.segments``. ``notes`` say what
        hovering says of positions, instead of one feature's activation."""
        found: list[Run] = []
        plain: list[str] = []
        for token in self.tokens:
            if not (token.firings or token.special or token.role):
                plain.append(token.text)
                continue
            if plain:
                found.append(Run(segments("".join(plain), marks, lines)))
                plain = []
            found.append(_run(token, marks, lines, notes))
        return [*found, Run(segments("".join(plain), marks, lines))] if plain else found


def context(
    tokens: Sequence[str],
    positions: Sequence[int],
    activations: Sequence[float],
    *,
    width: int | None,
    scale: float,
    messages: Sequence[MessageSpan] = (),
    center: int | None = None,
) -> Context:
    """A window of a sample.

    ``tokens`` are one display string each; ``positions`` those of the firings with their ``activations``, strongest
    first, so that ``positions[0]`` is what the window stands around unless ``center`` says otherwise. ``width`` tokens
    are shown on each side, all where it is None; a character is never cut. ``scale`` is the activation with the
    darkest shade.
    """
    strongest = positions[0] if positions else None
    middle = center if center is not None else strongest or 0
    first, stop = window(len(tokens), middle, width)
    units = _units(tokens, first, stop)
    first, stop = (units[0].first, units[-1].stop) if units else (0, 0)
    firing = dict(zip(positions, activations, strict=True))
    roles = speakers(messages, first, stop)
    return Context(
        first,
        stop,
        len(tokens),
        tuple(_shown(tokens, unit, firing, strongest, scale, roles) for unit in units),
    )


def _units(tokens: Sequence[str], first: int, stop: int) -> list[Unit]:
    """What is shown of positions ``first`` to ``stop``. A character has at most 4 bytes, so a few tokens on each side
    of a window say which characters its border would cut."""
    begin = max(0, first - _MARGIN)
    near = display_units(tokens[begin : stop + _MARGIN])
    found = (Unit(unit.first + begin, unit.stop + begin, unit.text) for unit in near)
    return [unit for unit in found if unit.first < stop and unit.stop > first]


def window(length: int, middle: int, width: int | None) -> tuple[int, int]:
    """(first, one past the last) position of a window of ``width`` tokens on each side, inside the sample."""
    if width is None:
        return 0, length
    return max(0, middle - width), min(length, middle + width + 1)


def shade_of(activation: float, scale: float) -> int:
    """The shade of an activation: 0 only if it is not positive, ``SHADES`` from ``scale`` on."""
    if not activation > 0:
        return 0
    share = activation / scale if scale > 0 else 1.0
    return max(1, min(SHADES, math.ceil(SHADES * share)))


def _shown(
    tokens: Sequence[str],
    unit: Unit,
    firing: Mapping[int, float],
    strongest: int | None,
    scale: float,
    roles: Mapping[int, str],
) -> ShownToken:
    first, stop, text = unit
    firings = tuple(Firing(at, tokens[at], firing[at]) for at in range(first, stop) if at in firing)
    return ShownToken(
        position=first,
        stop=stop,
        text=text,
        firings=firings,
        shade=max((shade_of(one.activation, scale) for one in firings), default=0),
        strongest=strongest is not None and first <= strongest < stop,
        special=stop == first + 1 and is_special(text),
        role=next((roles[at] for at in range(first, stop) if at in roles), ""),
    )


def is_special(token: str) -> bool:
    """Whether a token looks like one that the tokenizer or a chat template adds, such as ``<|endoftext|>``.

    By its text, for the database does not hold which ids are special; it only dims it.
    """
    return _SPECIAL.fullmatch(token) is not None


def _run(token: ShownToken, marks: bool, lines: bool, notes: Mapping[int, str] | None) -> Run:
    peak = max((one.activation for one in token.firings), default=None)
    noted = notes is not None and "; ".join(notes[at] for at in range(token.position, token.stop) if at in notes)
    return Run(
        segments(token.text, marks, lines, signs=bool(token.firings)),
        token.shade,
        token.strongest,
        token.special,
        token.role,
        noted or title(token),
        "" if peak is None else noted or three_digits(peak),
        token.firings[0].position if token.firings else token.position,
    )


def title(token: ShownToken) -> str:
    """What hovering says: token, activation, position; of joined tokens each with its own."""
    if not token.firings:
        return ""
    if token.stop == token.position + 1:
        one = token.firings[0]
        return f"{visible(one.token)} · {three_digits(one.activation)} · position {one.position}"
    each = ", ".join(f"{one.token} {three_digits(one.activation)} at {one.position}" for one in token.firings)
    return f"{visible(token.text)} · positions {token.position} to {token.stop - 1} · {visible(each)}"
