"""The list of faults cannot rot: what each replaces is still there, and so are the tests that notice it."""

from pathlib import Path

import pytest

import extraction_assets
from extraction_assets_tests.mutations.listed import MUTATIONS, Mutation
from extraction_assets_tests.mutations.noticed import failed_tests

PACKAGE = Path(extraction_assets.__file__).parent
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_fault_replaces_occurs_once(mutation: Mutation) -> None:
    assert (PACKAGE / mutation.file).read_text("utf-8").count(mutation.old) == 1
    assert mutation.new != mutation.old


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_leaves_python_that_can_run(mutation: Mutation) -> None:
    whole = (PACKAGE / mutation.file).read_text("utf-8")
    compile(whole.replace(mutation.old, mutation.new), mutation.file, "exec")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_tests_of_a_fault_are_there(mutation: Mutation) -> None:
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name or 'test_'}" in (TESTS / file).read_text("utf-8")


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A checkout with one function and its test."""
    for folder in ("extraction_assets", "extraction_assets_tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "extraction_assets" / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "extraction_assets_tests" / "test_sums.py").write_text(
        "from extraction_assets.sums import add\n\n\ndef test_two_and_two():\n    assert add(2, 2) == 4\n"
    )
    return tmp_path


@pytest.mark.slow
def test_a_fault_that_a_test_sees_is_noticed_and_the_copy_is_whole_again(sums: Path) -> None:
    mutation = Mutation("difference", "sums.py", "a + b", "a - b", ("test_sums.py",))
    assert failed_tests(sums, mutation) == ["test_sums.py::test_two_and_two"]
    assert "a + b" in (sums / "extraction_assets" / "sums.py").read_text()


@pytest.mark.slow
def test_a_fault_that_no_test_sees_is_not(sums: Path) -> None:
    assert failed_tests(sums, Mutation("product", "sums.py", "a + b", "a * b", ("test_sums.py",))) == []


@pytest.mark.slow
def test_tests_that_cannot_run_notice_nothing(sums: Path) -> None:
    with pytest.raises(RuntimeError, match="pytest ended with code 4"):
        failed_tests(sums, Mutation("gone", "sums.py", "a + b", "a - b", ("test_none.py",)))


def test_a_text_that_is_gone_is_no_fault(sums: Path) -> None:
    with pytest.raises(RuntimeError, match="occurs 0 times"):
        failed_tests(sums, Mutation("old", "sums.py", "a / b", "a - b", ("test_sums.py",)))
