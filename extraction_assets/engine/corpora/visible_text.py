r"""Untrusted text made safe to show: characters that move a cursor, hide or reorder are escaped.

Document ids, file names, keys of YAML files, checkpoint paths and tokens come from outside. A terminal obeys the escape
sequences in them (clear the screen, retitle the window, write to the clipboard), and a page the controls that turn text
around (https://trojansource.codes). Ordinary text of every script stays as it is.
"""

import logging
import re

SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
"""What is shown for a line break, a tab and a carriage return."""

_SEEN = "\u3000\u06dd\u070f\u08e2\U000110bd\U000110cd" + "".join(map(chr, (*range(0x600, 0x606), 0x890, 0x891)))
"""Seen as text though ``str.isprintable`` says no: CJK's wide space, and the signs that Unicode calls prepended."""

_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
"""Not seen though ``str.isprintable`` says yes: fillers and joiners that are letters or marks by their category."""

# A joiner belongs to a joined emoji, and to words of the scripts from Arabic to Khmer; elsewhere it only hides.
_PICTURE, _MODIFIER = "\u2190-\u2bff\U0001f000-\U0001faff", "\ufe0f\U0001f3fb-\U0001f3ff"
_JOINED_SCRIPT = "\u0620-\u06ff\u0710-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff"
# A variation selector belongs to the one character before it; a row of them carries hidden bytes.
_SELECTOR = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_IN_PLACE = re.compile(
    f"(?<=[{_PICTURE}{_MODIFIER}])\u200d(?=[{_PICTURE}])"
    f"|(?<=[{_JOINED_SCRIPT}])[\u200c\u200d](?=[{_JOINED_SCRIPT}])"
    f"|(?<=[^\\s{_SELECTOR}])[{_SELECTOR}]"
)
_SUSPECT = re.compile(f"[\u200c\u200d{_SELECTOR}{_UNSEEN}]")


def visible(text: str, keep: str = "") -> str:
    r"""Text in one line, with what cannot be seen written out.

    Line breaks and tabs become ⏎ ␍ ⇥; the other control characters, format characters (bidi controls, zero-width ones,
    tags), line and paragraph separators, spaces that look like another one, private characters and lone surrogates
    become ``\x1b``, ``\u202e`` or ``\U000e0041``. ``keep`` names characters that stay, such as ``"\n\t"``. Doing it
    twice changes nothing more.
    """
    plain = text.translate(dict.fromkeys(map(ord, keep))) if keep else text
    if plain.isprintable() and not _SUSPECT.search(text):
        return text
    in_place = {match.start() for match in _IN_PLACE.finditer(text)}
    return "".join(ch if at in in_place or ch in keep else _shown(ch) for at, ch in enumerate(text))


def visible_log(record: logging.LogRecord) -> bool:
    """A logging filter: lets every record pass, its message as ``visible`` shows it. Dagster's events keep theirs."""
    if not hasattr(record, "dagster_event"):
        record.msg, record.args = visible(record.getMessage()), ()
    return True


def _shown(ch: str) -> str:
    if ch in SIGNS:
        return SIGNS[ch]
    if ch in _SEEN or (ch.isprintable() and not _SUSPECT.match(ch)):
        return ch
    code = ord(ch)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
