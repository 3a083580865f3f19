"""The terminal: what every command prints goes through ``echo``, and features and examples are lines for it."""

import secrets
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from extraction_assets.engine.corpora.visible_text import visible

if TYPE_CHECKING:
    from extraction_assets.database.queries.examples import Example

# What starts an escape sequence of ours until it is printed. Text from outside cannot know it, and so never styles.
_STYLE = f"<{secrets.token_hex(16)}>"


def styled(text: str, **style: Any) -> str:
    """Text in a colour or weight (the arguments of ``click.style``), for ``echo``."""
    return click.style(visible(text), **style).replace("\x1b[", _STYLE)


def echo(*lines: str, err: bool = False) -> None:
    """Print lines, each argument one; control characters in them are shown, see ``visible``, and never obeyed.

    A character that the terminal's encoding does not have is written as ``\\u2026``, without an error.
    """
    text = "\n".join(visible(line).replace(_STYLE, "\x1b[") for line in lines)
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def write_line(line: str) -> None:
    """Print one line that a program reads, as UTF-8 whatever the terminal's encoding; what cannot be seen is shown as
    by ``echo``, so a line that is to be read back has escaped it itself."""
    click.echo(visible(line).encode())


def feature_lines(feature: Any, examples: "Sequence[Example]", width: int) -> list[str]:
    """A heading with the feature's statistics, then one line for each example: its strongest token in context."""
    if not examples:
        why = "fires, but never above min_activation" if feature.activation_count else "never fires"
        return [styled(f"feature {feature.neuron_index}", bold=True) + f"  {why}"]
    from extraction_assets.engine.statistics.rows_and_sentences import shown_sizes  # NumPy, not for --help

    heading = (
        f"fires in {feature.activation_frequency:.2%} of samples, on {feature.token_frequency:.3%} of tokens; "
        f"{shown_sizes(feature)}"
    )
    lines = [styled(f"feature {feature.neuron_index}", bold=True) + f"  {heading}"]
    for example in examples:
        where = styled(f"{example.document_id}, sample {example.sample_index}", dim=True)
        lines.append(f"  {example.max_activation:7.2f}  {_in_context(example, width)}  {where}")
    return lines


def _in_context(example: "Example", width: int) -> str:
    """Tokens around the strongest position: it stands in [], the others on which the feature fires in ‹›, and the role
    in «» where a message of a chat begins.

    The signs are there with colours too: a pipe, a file and a terminal without colours show the same.
    """
    from extraction_assets.engine.corpora.message_spans import speakers  # NumPy, not for --help

    strongest, firing = example.positions[0], set(example.positions)
    first, stop = max(0, strongest - width), min(len(example.tokens), strongest + width + 1)
    roles = speakers(example.messages, first, stop)
    pieces = []
    for at in range(first, stop):
        text = visible(example.tokens[at])
        if at in roles:
            pieces.append(styled(f"«{roles[at]}»", fg="cyan"))
        if at == strongest:
            pieces.append(styled(f"[{text}]", fg="yellow", bold=True))
        else:
            pieces.append(styled(f"‹{text}›", fg="yellow") if at in firing else text)  # noqa: RUF001
    return "".join(pieces)
