"""The help texts of the command line."""

from collections.abc import Iterator

import click

_HELP_WIDTH = 110


def commands() -> str:
    """The help text of the command and of all its subcommands."""
    return "".join(f"### {title}\n\n```text\n{text}\n```\n\n" for title, text in _help_texts()).rstrip("\n") + "\n"


def _help_texts() -> Iterator[tuple[str, str]]:
    from extraction_assets.cli import main

    yield from _help_of("extraction-assets", main, _context(main, "extraction-assets", None))


def _help_of(title: str, command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield title, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            assert one is not None
            yield from _help_of(f"{title} {name}", one, _context(one, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    widths = {"terminal_width": _HELP_WIDTH, "max_content_width": _HELP_WIDTH}
    return click.Context(command, info_name=name, parent=parent, **{**command.context_settings, **widths})
