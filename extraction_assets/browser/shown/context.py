"""An example as people read it: a window of tokens around the strongest one, shaded by activation.

Pure: from the rows of the database to named tuples, without HTML. Ids and positions are never changed; only what is
shown is joined (characters split over tokens) or marked (white space).
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import markupsafe

from extraction_assets.browser.shown.characters import Unit, display_units, has_split_characters
from extraction_assets.browser.shown.numbers import three_digits
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

_BRACKETS = ("<", "[")
"""What such a token begins with."""

_MARGIN = 8


class Firing(NamedTuple):
    """One token on which a feature fires."""

    position: int
    token: str
    activation: float


class ShownToken(NamedTuple):
    """What is shown in one place and is more than plain text: a token, or tokens that hold parts of the same
    characters."""

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
    """Whether it is a token that the tokenizer or a template adds."""
    role: str
    """Who speaks from here on, where a message of a chat begins; as ``show`` writes it."""


class Context(NamedTuple):
    """A window of a sample, as the database holds it; ``shown`` is what people see of it."""

    first: int
    stop: int
    length: int
    """Tokens of the whole sample."""
    tokens: tuple[str, ...]
    """One string for each token from ``first`` to before ``stop``."""
    positions: tuple[int, ...]
    """Where the feature fires inside the window, strongest first."""
    activations: tuple[float, ...]
    strongest: int | None
    """Position of the sample's strongest token; it may lie outside the window."""
    scale: float
    """The activation with the darkest shade."""
    special: tuple[int, ...]
    """Positions of tokens that the tokenizer or a template adds."""
    roles: Mapping[int, str]
    """Position -> who speaks from there on."""

    @property
    def whole(self) -> bool:
        """Whether it is the whole sample."""
        return self.first == 0 and self.stop == self.length

    def shown(self) -> Iterator[str | ShownToken]:
        """The window in order: plain text, and what is more than that. A page has thousands of tokens, few of which are
        more than plain text."""
        firing = dict(zip(self.positions, self.activations, strict=True))
        marked = sorted({*firing, *self.special, *self.roles})
        at = self.first
        for unit in _units_at(self.tokens, self.first, marked):
            if at < unit.first:
                yield _joined_text(self.tokens[at - self.first : unit.first - self.first])
            yield self._token(unit, firing)
            at = unit.stop
        if at < self.stop:
            yield _joined_text(self.tokens[at - self.first :])

    def _token(self, unit: Unit, firing: Mapping[int, float]) -> ShownToken:
        first, stop, text = unit
        places = range(first, stop)
        firings = tuple(Firing(at, self.tokens[at - self.first], firing[at]) for at in places if at in firing)
        return ShownToken(
            position=first,
            stop=stop,
            text=text,
            firings=firings,
            shade=max((shade_of(one.activation, self.scale) for one in firings), default=0),
            strongest=self.strongest is not None and self.strongest in places,
            special=stop == first + 1 and first in self.special,
            role=next((self.roles[at] for at in places if at in self.roles), ""),
        )

    def markup(
        self, marks: bool = False, lines: bool = False, notes: Mapping[int, str] | None = None
    ) -> markupsafe.Markup:
        """The window as HTML; see ``runs``. With ``notes`` each token that they name is a link to its position."""
        return runs_markup(self.runs(marks, lines, notes), linked=notes is not None)

    def runs(self, marks: bool = False, lines: bool = False, notes: Mapping[int, str] | None = None) -> list[Run]:
        """The window for a page; ``marks`` and ``lines`` are those of ``whitespace.segments``. ``notes`` say what
        hovering says of positions, instead of one feature's activation."""
        return [
            Run(segments(one, marks, lines)) if isinstance(one, str) else _run(one, marks, lines, notes)
            for one in self.shown()
        ]


def context(
    tokens: Sequence[str],
    positions: Sequence[int],
    activations: Sequence[float],
    *,
    width: int | None,
    scale: float,
    messages: Sequence[MessageSpan] = (),
    center: int | None = None,
    special: Collection[int] | None = None,
) -> Context:
    """A window of a sample.

    ``tokens`` are one display string each; ``positions`` those of the firings with their ``activations``, strongest
    first, so that ``positions[0]`` is what the window stands around unless ``center`` says otherwise. ``width`` tokens
    are shown on each side, all where it is None; a character is never cut. ``scale`` is the activation with the
    darkest shade. ``special`` are the positions of special tokens; without it their texts say which are.
    """
    strongest = positions[0] if positions else None
    middle = center if center is not None else strongest or 0
    first, stop = _whole_characters(tokens, *window(len(tokens), middle, width))
    inside = [(at, value) for at, value in zip(positions, activations, strict=True) if first <= at < stop]
    shown = tuple(tokens[first:stop])
    if special is None:
        special = special_positions(tokens, (), None)
    return Context(
        first,
        stop,
        len(tokens),
        shown,
        tuple(at for at, _ in inside),
        tuple(value for _, value in inside),
        strongest,
        scale,
        tuple(at for at in special if first <= at < stop),
        speakers(messages, first, stop),
    )


def _whole_characters(tokens: Sequence[str], first: int, stop: int) -> tuple[int, int]:
    """A window made larger where its borders would cut a character. One has at most 4 bytes, so a few tokens on each
    side say which do."""
    begin = max(0, first - _MARGIN)
    near = display_units(tokens[begin : stop + _MARGIN])
    found = [unit for unit in near if unit.first + begin < stop and unit.stop + begin > first]
    return (found[0].first + begin, found[-1].stop + begin) if found else (0, 0)


def _units_at(tokens: Sequence[str], first: int, marked: Sequence[int]) -> Iterator[Unit]:
    """The units that hold the marked positions, each once."""
    if not has_split_characters(tokens):
        yield from (Unit(at, at + 1, tokens[at - first]) for at in marked)
        return
    left = set(marked)
    for unit in display_units(tokens):
        if left.intersection(range(unit.first + first, unit.stop + first)):
            yield Unit(unit.first + first, unit.stop + first, unit.text)


def _joined_text(tokens: Sequence[str]) -> str:
    """Plain tokens as one text."""
    return "".join(unit.text for unit in display_units(tokens)) if has_split_characters(tokens) else "".join(tokens)


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


def special_positions(
    tokens: Sequence[str], token_ids: Sequence[int], special_ids: Collection[int] | None
) -> tuple[int, ...]:
    """Where the special tokens are: by their ids, or by their texts where it is not known which ids are special."""
    if special_ids is None:
        return tuple(at for at, token in enumerate(tokens) if is_special(token))
    return tuple(at for at, token_id in enumerate(token_ids) if token_id in special_ids)


def is_special(token: str) -> bool:
    """Whether a token looks like one that the tokenizer or a chat template adds, such as ``<|endoftext|>``."""
    return token[:1] in _BRACKETS and _SPECIAL.fullmatch(token) is not None


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
