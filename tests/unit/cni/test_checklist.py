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
