# ruff: noqa: RUF001
"""What stands on a terminal: text of others is shown and never obeyed, and every firing token is marked."""

import ast
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

import extraction_assets
from extraction_assets.cli.app import _Group
from extraction_assets.cli.terminal import echo, feature_lines, styled
from extraction_assets.database.queries.examples import Example
from extraction_assets.engine.corpora.message_spans import MessageSpan

HOSTILE = "a\x1b]0;title\x07\x1b[31mb\rc\nError: forged\u202egpj\u200b\u2028\udc80\x9b"
SHOWN = r"a\x1b]0;title\x07\x1b[31mb␍c⏎Error: forged\u202egpj\u200b\u2028\udc80\x9b"
FEATURE = SimpleNamespace(
    neuron_index=3,
    activation_count=2,
    activation_frequency=0.5,
    token_frequency=0.1,
    max_activation=2.5,
    mean_activation=1.0,
)


def _printed(*lines: str) -> str:
    return CliRunner().invoke(click.command()(lambda: echo(*lines)), color=True).output


def _example(tokens: list[str], positions: list[int], document: str = "a.txt") -> Example:
    return Example(0, 7, 2.5, tokens[positions[0]], document, 0, tokens, positions, [2.5] * len(positions))


def test_an_argument_is_one_line_whatever_is_in_it() -> None:
    assert _printed(HOSTILE, "next") == f"{SHOWN}\nnext\n"


def test_our_own_styles_survive_and_those_of_others_do_not() -> None:
    assert _printed(styled("ok\x1b[8m", fg="green") + " \x1b[1mbold") == "\x1b[32mok\\x1b[8m\x1b[0m \\x1b[1mbold\n"


def test_a_character_that_the_terminal_does_not_have_is_written_out() -> None:
    printed = CliRunner(charset="latin-1").invoke(click.command()(lambda: echo("é ⏎")))
    assert printed.stdout_bytes.decode("latin-1") == "é \\u23ce\n"


def test_every_firing_token_is_marked_without_colours_too() -> None:
    example = _example(["a", " b", " c", " d", " e"], [3, 1, 2])
    line = click.unstyle(_printed(feature_lines(FEATURE, [example], width=9)[1]))
    assert line == "     2.50  a‹ b›‹ c›[ d] e  a.txt, sample 7\n"


def test_a_chat_says_who_speaks_where_the_speaker_changes_and_where_the_window_begins() -> None:
    messages = (MessageSpan("user", 1, 3), MessageSpan(HOSTILE, 4, 6))
    example = _example(["<s>", "a", " b", "|", "c", " d"], [4])._replace(messages=messages)
    line = click.unstyle(_printed(feature_lines(FEATURE, [example], width=2)[1]))
    assert line == f"     2.50  «user …» b|«{SHOWN}»[c] d  a.txt, sample 7\n"


def test_tokens_and_document_ids_stay_in_their_line() -> None:
    example = _example([HOSTILE, "x"], [0], HOSTILE)
    (line,) = click.unstyle(_printed(*feature_lines(FEATURE, [example], width=1)[1:])).splitlines()
    assert line == f"     2.50  [{SHOWN}]x  {SHOWN}, sample 7"


@pytest.mark.parametrize("error", [ValueError, RuntimeError, click.ClickException, click.UsageError])
def test_an_error_that_quotes_a_file_is_shown_in_one_line(error: type[Exception]) -> None:
    @click.group(cls=_Group)
    def main() -> None: ...

    @main.command()
    def fail() -> None:
        raise error(HOSTILE)

    output = CliRunner().invoke(main, ["fail"], color=True).output
    assert output.splitlines()[-1].endswith(f" {SHOWN}")
    assert output.count("Error: forged") == 1


def test_a_traceback_of_debug_is_shown_and_not_obeyed() -> None:
    @click.group(cls=_Group)
    @click.option("--debug", is_flag=True)
    def main(debug: bool) -> None: ...

    @main.command()
    def fail() -> None:
        raise ValueError("\x1b[2J\u202e")

    result = CliRunner().invoke(main, ["--debug", "fail"], color=True)
    assert result.exit_code == 1
    assert result.output.splitlines()[0] == "Traceback (most recent call last):"
    assert result.output.splitlines()[-2] == r"ValueError: \x1b[2J\u202e"


def test_every_command_prints_by_echo() -> None:
    commands = Path(extraction_assets.__file__).parent / "cli"
    direct = ("click.echo", "click.secho", "click.style", "print", "sys.stdout.write", "sys.stderr.write")
    for path in set(commands.glob("*.py")) - {commands / "terminal.py"}:
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        found = [f"{path.name}:{call.lineno}" for call in calls if ast.unparse(call.func) in direct]
        assert not found, "extraction_assets.cli.terminal.echo shows control characters; these calls obey them"
