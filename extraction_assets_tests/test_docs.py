"""README.md and docs/ say what is so: generated parts are current, what is named exists, what is typed works."""

import ast
import functools
import importlib
import re
import runpy
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import sqlalchemy as sa
import yaml

from extraction_assets.cli import main
from extraction_assets.database.backends import backend_of
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.tables import metadata
from extraction_assets.engine.saes.formats import FORMATS
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.database.synthetic import make_results
from extraction_assets_tests.documentation import (
    PAGES,
    ROOT,
    Found,
    anchors,
    blocks,
    inline_code,
    links,
    prose,
    typed_lines,
)

GENERATOR = runpy.run_path(str(ROOT / "docs" / "generate.py"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def named(found: Found) -> str:
    return found.name


@pytest.mark.parametrize("page", GENERATOR["pages"](), ids=lambda page: page.name)
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text == GENERATOR["renewed"](text), "run `make docs`"


def test_every_generated_part_stands_on_a_page() -> None:
    text = "".join(page.read_text("utf-8") for page in GENERATOR["pages"]())
    assert [name for name in GENERATOR["PARTS"] if f"<!-- generated: {name} -->" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_merge_was_left_half_done(page: Path) -> None:
    assert re.findall(r"^(?:<{7}|>{7}) .*$", page.read_text("utf-8"), re.MULTILINE) == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 156


def test_the_readme_links_every_page() -> None:
    linked = {
        (link.page.parent / link.text.partition("#")[0]).resolve() for link in links() if link.page.name == "README.md"
    }
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page not in linked] == []


@pytest.mark.parametrize("link", links(), ids=named)
def test_links_resolve(link: Found) -> None:
    path, _, anchor = link.text.partition("#")
    target = (link.page.parent / path).resolve() if path else link.page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


def test_every_picture_is_shown() -> None:
    shown = {(link.page.parent / link.text).resolve() for link in links()}
    assert [picture.name for picture in (ROOT / "docs" / "images").iterdir() if picture not in shown] == []


@pytest.mark.parametrize("block", blocks("yaml"), ids=named)
def test_yaml_blocks_are_valid_settings(block: Found) -> None:
    """Whole files, and parts of ``attributes``, which are tried on top of a minimal extraction."""
    given = yaml.safe_load(block.text)
    fields = given.get("attributes", given)
    minimal: dict[str, Any] = {
        "language_model": {"path": "a"},
        "corpus": {"source": "standard-library"},
        "saes": {"s": {"path": "b"}},
    }
    ExtractionSettings.model_validate({**minimal, **fields})


def commands() -> list[Found]:
    pattern = re.compile(r"extraction-assets (?!\()[-a-z].*")
    return list(dict.fromkeys(found for found in typed_lines() if pattern.fullmatch(found.text)))


@pytest.mark.parametrize("typed", commands(), ids=named)
def test_commands_and_their_options_exist(typed: Found) -> None:
    words = shlex.split(typed.text.replace("…", "X"))[1:]
    known, command, group = options(main), None, main
    for word in words:
        if (found := group.commands.get(word)) is not None and (command is None or command is group):
            command, known = found, options(found)
            group = found if isinstance(found, click.Group) else group
        elif word.startswith("-"):
            assert word in known
    assert command is not None or words[0].startswith("-")


def options(command: click.Command) -> set[str]:
    names = (name for option in command.params for name in (*option.opts, *option.secondary_opts))
    return {*names, "--help", "-h"}


@pytest.mark.parametrize(
    "target", sorted({m for f in typed_lines() for m in re.findall(r"\bmake ([a-z][-a-z]+)$", f.text)})
)
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(
    "name", sorted({m for f in typed_lines() for m in re.findall(r"python -m (benchmarks\.\w+)", f.text)})
)
def test_benchmarks_that_are_named_can_be_run(name: str) -> None:
    assert 'if __name__ == "__main__":' in (ROOT / f"{name.replace('.', '/')}.py").read_text("utf-8")


PATH = re.compile(r"(?:extraction_assets|extraction_assets_tests|docs|benchmarks)/[\w./]+")
IN_THE_PACKAGE = re.compile(r"[a-z_]+/(?:[\w/]*\w+\.\w+|[\w/]*)")
MODULE = re.compile(r"[a-z_0-9]+\.py")
MADE_BY_USERS = {
    "extraction_assets/ray_job",
    "extraction_assets/running",
    "extraction_assets/defs/NAME/defs.yaml",
    "extraction_assets/defs/my_model/defs.yaml",
}


def paths() -> list[str]:
    """Files and folders that the pages name; ``NEW`` stands in what a reader is to write."""
    named = {f.text for f in inline_code() if PATH.fullmatch(f.text)}
    map_of_rooms = (f.text for f in inline_code() if f.page.name == "architecture.md")
    named |= {text for text in map_of_rooms if IN_THE_PACKAGE.fullmatch(text)}
    return sorted(path for path in named - MADE_BY_USERS if "NEW" not in path)


@pytest.mark.parametrize("path", paths())
def test_files_that_are_named_exist(path: str) -> None:
    places = (ROOT, ROOT / "extraction_assets", ROOT / "extraction_assets_tests")
    assert any((place / path).exists() for place in places)


MODULES = sorted({f.text for f in inline_code() if f.page.name == "architecture.md" and MODULE.fullmatch(f.text)})


@pytest.mark.parametrize("name", MODULES)
def test_modules_that_are_named_by_their_last_part_exist(name: str) -> None:
    assert any(path.name == name for path in [*ROOT.glob("extraction_assets*/**/*.py"), *ROOT.glob("*/*.py")])


@pytest.mark.parametrize("block", blocks("python"), ids=named)
def test_python_blocks_import_what_exists(block: Found) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


FIELD = re.compile(r"(?:corpus(?!\.json)|language_model|keep|saes\.NAME)\.[a-z_]+")


@pytest.mark.parametrize("field", sorted({f.text for f in inline_code() if FIELD.fullmatch(f.text)}))
def test_fields_that_are_named_exist(field: str) -> None:
    assert f"| `{field}` |" in (ROOT / "docs" / "settings.md").read_text("utf-8")


@pytest.mark.parametrize(("name", "reader"), FORMATS.items(), ids=list(FORMATS))
def test_every_sae_format_is_listed_with_its_files(name: str, reader: ModuleType) -> None:
    row = re.search(rf"^\| {name}.*$", (ROOT / "docs" / "sae_formats.md").read_text("utf-8"), re.MULTILINE)
    assert row
    files = reader.files(None).required or (reader.WEIGHTS,)
    assert [file for file in files if f"`{file}`" not in row[0]] == []


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_the_columns_of_the_database_are_described(table: sa.Table) -> None:
    page = prose(ROOT / "docs" / "database.md")
    section = page.partition(f"### `{table.name}`\n")[2].partition("\n#")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == [column.name for column in table.columns]


def test_every_table_people_read_is_listed_once() -> None:
    page = (ROOT / "docs" / "database.md").read_text("utf-8")
    listed = re.findall(r"^\| \[`(\w+)`\]\(#\1\)", page, re.MULTILINE)
    of_lists = {name for name in metadata.tables if name.endswith("_lists")}  # which views show
    assert sorted(listed) == sorted(
        [*(metadata.tables.keys() - of_lists), *backend_of(sa.create_engine("sqlite://")).views]
    )


QUERIES = [
    query
    for query in re.findall(r"```sql\n(.*?);", (ROOT / "docs" / "database.md").read_text("utf-8"), re.DOTALL)
    if "feature_roles" not in query  # of chats: see test_sample_messages.py
]


@pytest.mark.parametrize("query", QUERIES, ids=["features", "examples", "sample", "word"])
def test_the_queries_run_and_round(results_url: str, query: str) -> None:
    engine = open_database(results_url)
    try:
        with write_transaction(engine) as connection:
            make_results("f", 1.256, num_features=3446, top_k=2).load(connection)
        with engine.connect() as connection:
            query = query.replace("sample_index = 42", "sample_index = 7919").replace("'import'", "'t4'")
            rows = connection.execute(sa.text(query)).all()
        assert rows
        assert all(1.26 in [float(value) for value in row if not isinstance(value, str)] for row in rows)
    finally:
        engine.dispose()


@functools.cache
def said() -> list[str]:
    """Every text in the package, with ``…`` for what is filled in."""
    texts = []
    for source in (path.read_text("utf-8") for path in (ROOT / "extraction_assets").rglob("*.py")):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


SAID_BY_OTHERS = {
    "… password authentication failed …",
    "… must be owner of table extractions",
    "… permission denied for schema public",
}


def messages() -> list[str]:
    """What stands in the first column of the tables of messages and alarms."""
    pages = [prose(ROOT / "docs" / name) for name in ("troubleshooting.md", "operating.md")]
    tables = [
        table for page in pages for table in re.findall(r"^\| (?:message|alarm) \|.*?\n\n", page + "\n\n", re.S | re.M)
    ]
    cells = [row.partition(" | ")[0] for table in tables for row in table.splitlines()[2:]]
    return sorted({text for cell in cells for text in re.findall(r"`([^`]+)`", cell)} - SAID_BY_OTHERS)


@pytest.mark.parametrize("message", messages())
def test_messages_are_those_of_the_code(message: str) -> None:
    """Some words in a row: what a message fills in, such as names and numbers, divides it."""
    parts = [part.split() for part in re.split(r"…|'|\b[A-Z]\b|\d[\d.]*", message)]
    rows = [" ".join(part[i : i + 3]) for part in parts for i in range(max(1, len(part) - 2)) if len(part) > 1]
    assert any(row.strip(" :,;") in text for row in rows or [message] for text in said())
