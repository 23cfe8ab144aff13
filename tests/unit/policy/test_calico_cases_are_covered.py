"""The table in docs/policy-cases.md names tests that exist, and leaves no case out."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
TEXT = (TESTS.parent / "docs" / "policy-cases.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:unit|integration)/[\w/]+\.py)::(\w+)`", TEXT)))


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    part = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


SUMS = {suite: int(count) for suite, _, count in rows("Sums")}
CASES = rows("Cases")


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("suite", SUMS)
def test_a_suites_rows_sum_up_to_its_cases(suite: str) -> None:
    assert sum(int(row[1]) for row in CASES if row[0] == suite) == SUMS[suite]


def test_every_row_is_of_a_suite_and_has_a_test_or_a_reason() -> None:
    assert len(NAMED) > 40
    for position, (suite, _, _, covered) in enumerate(CASES):
        assert suite in SUMS
        if covered == "the same":
            assert CASES[position - 1][0] == suite
        else:
            assert "::" in covered or covered.startswith("does not apply: "), covered


def test_every_test_of_calicos_cases_is_named() -> None:
    files = sorted(TESTS.glob("unit/*/test_calico_*_cases.py"))
    ours = [file for file in files if file.parent.name in ("dataplane", "policy", "model")]
    assert len(ours) == 5
    named = {name for _, name in NAMED}
    for file in ours:
        functions = [
            node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        assert {name for name in functions if name.startswith("test_")} <= named, file


def test_what_the_validators_table_names_exists() -> None:
    part = (TESTS.parent / "docs" / "validation.md").read_text().partition("\n## ")[0]
    files = set(re.findall(r"`(test_\w+\.py)`", part))
    assert len(files) > 4
    texts = {file: (TESTS / "unit" / "model" / file).read_text() for file in files}
    for constant in set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", part)):
        assert re.search(rf"^{constant}\b.*=", texts["test_policy_validation.py"], re.MULTILINE), constant
    groups = {name.strip() for line in re.findall(r"groups: ([\w, ]+)", part) for name in line.split(",")}
    for group in groups:
        name = group.lower().replace(" ", "_")
        assert re.search(rf"def test_\w*{name}", texts["test_validation_groups.py"]), group
