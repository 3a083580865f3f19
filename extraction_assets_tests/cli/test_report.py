"""``report``: one file that needs nothing else, in which hostile text is only text."""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.labels import label_transaction, save_label
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.tables import feature_neighbours, relations
from extraction_assets.database.writing.feature_examples import replace_results
from extraction_assets_tests.command import declare, invoke
from extraction_assets_tests.database.synthetic import CORPUS, make_results
from extraction_assets_tests.project import Project

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)><a href=javascript:alert(1)>\x1b[2J\u202e"
Report = Callable[..., Result]


class _Page(HTMLParser):
    """Elements with their attributes, and the ids that stand in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.styles: list[str] = []
        self._open = ""
        self.feed(page)

    @property
    def ids(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open == "style":
            self.styles.append(data)
            self._open = ""


@pytest.fixture
def report(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Report:
    """``report tiny --sae relu`` in an empty folder, features 3 and 5 labelled."""
    monkeypatch.chdir(tmp_path)
    engine = open_database(project.url)
    with label_transaction(engine) as connection:
        save_label(connection, "tiny", "relu", 5, label="of foxes", mark="interesting", note="a\nnote")
        save_label(connection, "tiny", "relu", 3, note="only a note")
        _relate(connection, 7, [3, 40])
    engine.dispose()
    return partial(invoke, declare(monkeypatch, project.settings), "report", "tiny", "--sae", "relu")


def _relate(connection: sa.Connection, index: int, others: list[int]) -> None:
    """Relations of the current result in which a feature fires together with others."""
    extraction = find_extraction(connection, "tiny", "relu")
    relation = {
        "extraction_id": extraction.id,
        "fingerprint": "f",
        "merge_fingerprint": extraction.fingerprint,
        "scope": "corpus",
        "sample_one_in": 1,
        "sample_count": 23,
        "token_count": 300,
        "finished_at": extraction.finished_at,
    }
    neighbours = [[other, 5, 0.5, 1.0] for other in others]
    row = {"extraction_id": extraction.id, "neuron_index": index, "neighbours": neighbours, "tokens": 9}
    connection.execute(sa.insert(relations).values(relation))
    connection.execute(sa.insert(feature_neighbours).values(row))


def written(result: Result, path: str = "tiny-relu.html") -> str:
    assert result.exit_code == 0, result.output
    return Path(path).read_text("utf-8")


def features(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<article class="cols feature" id="feature-([0-9]+)"', page)]


def test_features_stand_in_the_order_in_which_they_were_asked_for(report: Report) -> None:
    assert features(written(report("--features", "7,#3,7"))) == [7, 3]


def test_the_size_of_the_file_is_said(report: Report) -> None:
    result = report("--features", "7")
    assert re.fullmatch(r"/.*/tiny-relu\.html  1 feature, [0-9.]+ kB\n", result.output), result.output


def test_labelled_features_are_all_of_them_with_what_was_written(report: Report) -> None:
    page = written(report("--labelled"))
    assert features(page) == [3, 5]
    assert "of foxes" in page
    assert "only a note" in page


def test_random_features_fire_and_are_the_same_again(report: Report, project: Project) -> None:
    first = features(written(report("--random", "4")))
    assert len(first) == 4
    assert features(written(report("--random", "4"))) == first
    [(firing,)] = project.rows(
        "SELECT count(*) FROM features f JOIN extractions e ON e.id = f.extraction_id "
        f"WHERE e.sae = 'relu' AND f.token_count > 0 AND f.neuron_index IN ({','.join(map(str, first))})"
    )
    assert firing == 4


def test_the_file_goes_where_it_is_asked_for_and_nothing_else_is_left(report: Report, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    written(report("--features", "7", "--out", "some.html"), "some.html")
    assert {path.name for path in tmp_path.iterdir()} - before == {"some.html"}


def test_folders_of_the_file_are_made(report: Report) -> None:
    written(report("--features", "7", "--out", "new/deep/some.html"), "new/deep/some.html")


def test_a_report_that_fails_leaves_the_file_before(report: Report) -> None:
    before = written(report("--features", "7"))
    result = report("--features", "48")
    assert result.exit_code == 1
    assert result.output == "Error: no feature 48: features are numbered from 0 to 47\n"
    assert Path("tiny-relu.html").read_text("utf-8") == before


@pytest.mark.parametrize("arguments", [(), ("--labelled", "--random", "3"), ("--features", "x"), ("--features", "")])
def test_which_features_is_said_in_one_way(report: Report, arguments: tuple[str, ...]) -> None:
    assert report(*arguments).exit_code == 2


def test_every_link_leads_to_a_place_in_the_file(report: Report) -> None:
    page = _Page(written(report("--random", "20")))
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links
    assert {str(link) for link in links} <= {f"#{name}" for name in page.ids}


def test_a_neighbour_in_the_file_is_a_link_and_another_is_text(report: Report) -> None:
    page = written(report("--features", "7,3"))
    links = [attributes["href"] for tag, attributes in _Page(page).elements if tag == "a"]
    assert links.count("#feature-3") == 2  # in the index and beside its neighbour
    assert "#feature-40" not in links
    assert ">#40<" in page


def test_an_id_stands_in_the_file_once(report: Report) -> None:
    ids = _Page(written(report("--random", "20"))).ids
    assert len(ids) == len(set(ids))


def test_the_policy_allows_the_style_sheet_in_the_file_and_nothing_else(report: Report) -> None:
    page = _Page(written(report("--features", "7")))
    (policy,) = (attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    (style,) = page.styles
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_nothing_in_the_file_needs_what_the_policy_forbids(report: Report) -> None:
    for tag, attributes in _Page(written(report("--features", "7"))).elements:
        assert tag not in ("script", "img", "link", "iframe", "form", "input")
        assert not {name for name in attributes if name in ("style", "src") or name.startswith("on")}


def test_the_file_names_no_folder_of_this_machine(report: Report, project: Project) -> None:
    page = written(report("--features", "7"))
    assert str(project.settings.language_model.path) not in page
    assert str(project.home) not in page


def test_hostile_texts_are_only_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXTRACTION_DATABASE_URL", url := f"sqlite:///{tmp_path}/results.sqlite")
    monkeypatch.chdir(tmp_path)
    made = make_results("f", 1.5, num_features=3, top_k=2)
    settings = {"saes": {"s": {"release": HOSTILE, "sae_id": HOSTILE}}}
    extraction = made.extraction._replace(hook=HOSTILE, model=HOSTILE, name="e", sae="s", settings=settings)
    corpus = CORPUS._replace(document_ids=[HOSTILE])
    engine = open_database(url)
    with write_transaction(engine) as connection:
        replace_results(
            connection, extraction, corpus, made.table, made.statistics, lambda ids: [f"{HOSTILE}{one}" for one in ids]
        )
        save_label(connection, "e", "s", 1, label=HOSTILE, note=HOSTILE)
    engine.dispose()
    page = written(invoke(declare(monkeypatch), "report", "e", "--features", "0,1,2"), "e-s.html")
    tags = {tag for tag, _ in _Page(page).elements}
    assert not tags & {"script", "img"}
    assert not [one for _, one in _Page(page).elements if str(one.get("href", "#")).startswith("javascript")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
