"""Writes the parts of README.md and docs/ that follow from the code: `make docs`, or `python docs/generate.py`.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end of generated -->``; ``NAME`` is a function
of ``PARTS``. Everything around it is written by hand. test_docs.py asserts that all are current.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "extraction_assets"

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)
_HELP_WIDTH = 110


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; line breaks and vertical bars inside a cell are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# Settings and resources


def _settings(model: type[BaseModel], prefix: str = "", leave_out: tuple[str, ...] = ()) -> str:
    rows = [
        [f"`{prefix}{name}`", _type(field.annotation), _default(field), field.description or ""]
        for name, field in model.model_fields.items()
        if name not in leave_out
    ]
    return table(["field", "type", "default", "meaning"], rows)


_TYPES = {str: "text", bool: "true or false", int: "whole number", float: "number"}


def _type(annotation: Any) -> str:
    """What may stand in the YAML file for a field of this type."""
    if annotation in _TYPES:
        return _TYPES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return ", ".join(_type(argument) for argument in arguments if argument is not NoneType)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    raise TypeError(f"no words for the type {annotation}: add them here")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", [], ()):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings_extraction() -> str:
    """Fields of an extraction, without those of its groups."""
    from extraction_assets.settings import ExtractionSettings

    return _settings(ExtractionSettings, leave_out=("language_model", "corpus", "saes", "keep"))


def settings_language_model() -> str:
    """Fields of `language_model`."""
    from extraction_assets.settings import LanguageModelSettings

    return _settings(LanguageModelSettings, "language_model.")


def settings_corpus() -> str:
    """Fields of `corpus`."""
    from extraction_assets.settings import CorpusSettings

    return _settings(CorpusSettings, "corpus.")


def settings_saes() -> str:
    """Fields of one SAE."""
    from extraction_assets.settings import SaeSettings

    return _settings(SaeSettings, "saes.NAME.")


def settings_keep() -> str:
    """Fields of `keep`."""
    from extraction_assets.settings import KeepSettings

    return _settings(KeepSettings, "keep.")


def _resource(resource: type[BaseModel]) -> str:
    rows = []
    for name, field in resource.model_fields.items():
        meaning, _, default = (field.description or "").partition(" Default: ")
        values = f" One of {_type(field.annotation)}." if get_origin(field.annotation) is Literal else ""
        rows.append([f"`{name}`", default.rstrip("."), meaning + values])
    return table(["field", "default", "meaning"], rows)


def gpu_fields() -> str:
    """Fields of the resource `gpu`."""
    from extraction_assets.resources import GpuResource

    return _resource(GpuResource)


def store_fields() -> str:
    """Fields of the other resources."""
    from extraction_assets.resources import ChunkStoreResource, ResultsResource

    resources: dict[str, type[BaseModel]] = {"chunk_store": ChunkStoreResource, "results": ResultsResource}
    rows = [
        [f"`{key}.{name}`", field.description or ""]
        for key, resource in resources.items()
        for name, field in resource.model_fields.items()
    ]
    return table(["field", "meaning and default"], rows)


# Assets


def assets() -> str:
    """The assets of an extraction."""
    from extraction_assets.catalog import assets_table

    return assets_table() + "\n"


def stale() -> str:
    """Which settings fields each asset depends on itself, and those on which none does."""
    from extraction_assets.catalog import ASSETS

    rows, seen = [], set[str]()
    for row in ASSETS:
        fields = [one.field.replace("sae.", "saes.NAME.") for one in row.depends]
        rows.append([f"`{row.name}`", _listed(fields)])
        seen.update(fields)
    return table(["asset", "fields"], [*rows, ["none", _listed([one for one in _all_fields() if one not in seen])]])


def _listed(fields: list[str]) -> str:
    return ", ".join(f"`{field}`" for field in fields) or "none of its own"


def _all_fields() -> list[str]:
    from extraction_assets import settings

    groups: dict[str, type[BaseModel]] = {
        "": settings.ExtractionSettings,
        "language_model.": settings.LanguageModelSettings,
        "corpus.": settings.CorpusSettings,
        "saes.NAME.": settings.SaeSettings,
        "keep.": settings.KeepSettings,
    }
    top = {prefix.partition(".")[0] for prefix in groups}
    names = [f"{prefix}{name}" for prefix, group in groups.items() for name in group.model_fields if name not in top]
    return [name for name in names if name != "name"]  # another name is another extraction


# Models


def transformer_lens_names() -> str:
    """Where each family of models has the tensors that TransformerLens names."""
    from extraction_assets.engine.models.transformer_lens_names import FAMILIES

    blocks = [(f"`{name}`", family.points) for name, family in FAMILIES.items()]
    blocks += [(f"`{name}` (linear)", family.linear.points) for name, family in FAMILIES.items() if family.linear]
    layouts = {id(points): points for _, points in blocks}
    heads = [", ".join(name for name, points in blocks if id(points) == key) for key in layouts]
    names = list(dict.fromkeys(point for points in layouts.values() for point in points))
    rows = [[f"`{name}`", *(_place(points.get(name)) for points in layouts.values())] for name in names]
    return table(["`blocks.N.` …", *heads], rows)


def _place(place: tuple[str, str] | None) -> str:
    if place is None:
        return ""
    path, side = place
    return f"`{path}`, {side}" if path else f"the block's {side}"


# Published SAEs


def published_saes() -> str:
    """How many of the SAEs that SAELens knows by name are read: by format, with their releases and models."""
    from extraction_assets.engine.saes.formats import FORMATS, format_of_loader
    from extraction_assets.engine.saes.published import registry

    sae_lens, releases = registry()
    formats = {name: format_of_loader(release.loader) for name, release in releases.items()}
    rows, read = [], 0
    for name in FORMATS:
        ours = [release for release in releases.values() if formats[release.name] == name]
        count = sum(len(release.saes) for release in ours)
        models = sorted({release.model.rpartition("/")[2] for release in ours})
        rows += [[name, str(len(ours)), f"{count:,}", ", ".join(models)]] if ours else []
        read += count
    refused = [name for name, format_ in formats.items() if format_ is None]
    known = sum(len(release.saes) for release in releases.values())
    return (
        f"Of the {known:,} SAEs in {len(releases)} releases that SAELens {sae_lens} knows by name, {read:,} in "
        f"{len(releases) - len(refused)} releases are read:\n\n"
        f"{table(['format', 'releases', 'SAEs', 'models'], rows)}\n"
        f"Not read, as `saes NAME` explains: {', '.join(f'`{name}`' for name in refused) or 'none'}.\n"
    )


# Statistics


def statistics() -> str:
    """The columns of the table `features` that are statistics."""
    from extraction_assets.engine.selection.statistics.descriptions import bytes_per_feature
    from extraction_assets.engine.selection.statistics.shown import statistics_table

    size = f"Together {bytes_per_feature()} bytes a feature, beside the top-k table of each chunk.\n"
    return f"{statistics_table()}\n{size}"


# The command line


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


# The rooms of the package


def _first_sentence(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("``", "`")


def _layers(container: str) -> list[str]:
    """The layers inside a package, from top to bottom, as the contract of `make lint` has them: ``a | b`` in a line."""
    layers: list[str] = next(one for one in _contracts() if one.get("containers") == [container])["layers"]
    return layers


def _contracts() -> list[dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return contracts


def _rooms(folder: Path, container: str, prefix: str) -> str:
    """Every package and module of a folder in the order of its layers, with the first sentence of its docstring."""
    order = [room for layer in _layers(container) for room in layer.split(" | ")]
    found = [path for path in folder.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"]
    rooms = sorted(
        (path for path in found if path.name != "__init__.py"),
        key=lambda path: (order.index(path.stem), path.name),  # `make lint` refuses a room without a layer
    )
    return table(
        ["place", "what is in it"],
        [
            [f"`{prefix}{path.name}/`", _first_sentence(path / "__init__.py")]
            if path.is_dir()
            else [f"`{prefix}{path.name}`", _first_sentence(path)]
            for path in rooms
        ],
    )


def rooms() -> str:
    """The rooms of the package."""
    return _rooms(PACKAGE, "extraction_assets", "")


def engine_rooms() -> str:
    """The rooms of the engine."""
    return _rooms(PACKAGE / "engine", "extraction_assets.engine", "engine/")


def layers() -> str:
    """The layers of the package, from top to bottom."""
    return "".join(f"    {layer}\n" for layer in _layers("extraction_assets"))


def contracts() -> str:
    """The other rules of imports that `make lint` holds."""
    return "".join(f"- {one['name']}.\n" for one in _contracts() if one.get("containers") != ["extraction_assets"])


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part
    for part in (
        settings_extraction,
        settings_language_model,
        settings_corpus,
        settings_saes,
        settings_keep,
        gpu_fields,
        store_fields,
        assets,
        stale,
        transformer_lens_names,
        published_saes,
        statistics,
        commands,
        rooms,
        engine_rooms,
        layers,
        contracts,
    )
}


def pages() -> list[Path]:
    """README.md and the pages in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def renewed(text: str) -> str:
    """A page's text with its generated parts as the code has them now."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text)


def main() -> None:
    """Writes the pages that have changed, and names them."""
    for page in pages():
        before = page.read_text("utf-8")
        after = renewed(before)
        if after != before:
            page.write_text(after, "utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
