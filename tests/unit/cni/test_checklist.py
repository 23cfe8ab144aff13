"""The table in docs/cni.md names tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
TEXT = (TESTS.parent / "docs" / "cni.md").read_text()
NAMED = re.findall(r"`((?:unit|integration)/[\w/]+\.py)(?:::(\w+))?`", TEXT)


def test_every_test_that_the_checklist_names_exists() -> None:
    assert len(NAMED) > 40
    for file, name in NAMED:
        tree = ast.parse((TESTS / file).read_text())
        functions = {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert not name or name in functions, f"{file} has no {name}"


def test_every_case_is_covered_or_has_a_reason() -> None:
    rows = [line.split("|") for line in TEXT.partition("## Calico's cases")[2].splitlines() if "|" in line]
    for row in rows[2:]:
        assert "::" in row[3] or "does not apply: " in row[3] or ".py`" in row[3], row


def test_the_cases_of_each_suite_add_up_to_what_is_stated() -> None:
    section = TEXT.partition("## Calico's cases")[2]
    stated = re.search(r"^Cases: (.*); (\d+) together\.$", section, re.MULTILINE)
    assert stated
    expected = {suite: int(count) for suite, count in re.findall(r"([\w.]+) (\d+)", stated[1])}
    found: dict[str, int] = {}
    for suite, case in re.findall(r"^\| (\S+) \| (.*?) \|", section, re.MULTILINE):
        count = re.search(r" \((\d+)\)$", case)
        if count:
            found[suite] = found.get(suite, 0) + int(count[1])
        else:
            assert suite in ("suite", "more"), case
    assert found == expected
    assert sum(found.values()) == int(stated[2])
