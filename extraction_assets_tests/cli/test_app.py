"""How the command line explains an error."""

from extraction_assets.cli.app import explain
from extraction_assets.engine.corpora.documents import CorpusError


def _raised(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


def test_an_error_of_this_package_is_preferred_to_its_cause_because_it_names_the_file() -> None:
    inner = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    error = _raised(RuntimeError("a step failed"), _raised(CorpusError("corpus file a.txt is not UTF-8 text"), inner))
    assert explain(error) == "corpus file a.txt is not UTF-8 text"


def test_without_one_the_first_cause_is_what_went_wrong() -> None:
    assert explain(_raised(RuntimeError("a step failed"), LookupError("no such feature"))) == "no such feature"
