"""The verdict for people (a table), for programs (JSON) and for CI (JUnit XML)."""

from __future__ import annotations

import json
from dataclasses import asdict
from xml.etree import ElementTree

from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import (
    FAILED,
    LAYERS,
    NOT_CHECKED,
    Check,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_judgement import failures, verdict

ROW_LIMIT = 120  # more (layer, subject) rows than this, and only layers and failures are listed

# What XML 1.0 (section 2.2) does not allow in a document, even escaped.
_NOT_XML = {code: "?" for code in range(32) if chr(code) not in "\t\n\r"}


def table(checks: list[Check]) -> str:
    """Layer by node or pair, each OK, FAIL or not checked with its reason; below it every failure in full."""
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        groups.setdefault((check.layer, check.subject), []).append(check)
    if len(groups) > ROW_LIMIT:
        groups = {}
        for check in checks:
            groups.setdefault((check.layer, "all"), []).append(check)
    rows = [("LAYER", "NODE OR PAIR", "RESULT", "CHECKS")]
    rows += [(layer, subject, _result(group), _detail(group)) for (layer, subject), group in groups.items()]
    lines = _columns(rows)
    failed = failures(checks)
    if failed:
        lines += ["", "FAILURES"]
    for check in failed:
        lines += [
            f"{check.layer}: {check.subject}: {check.what}",
            f"    expected  {check.expected}",
            f"    found     {check.found}",
            f"    look at   {check.hint}",
        ]
    return "\n".join(lines)


def _result(group: list[Check]) -> str:
    if any(check.status == FAILED for check in group):
        return "FAIL"
    return "OK" if any(check.ok for check in group) else "-"


def _detail(group: list[Check]) -> str:
    held = sum(check.ok for check in group)
    made = sum(check.status != NOT_CHECKED for check in group)
    skipped = [check for check in group if check.status == NOT_CHECKED]
    text = f"{held} of {made} hold" if made else ""
    if skipped:
        reasons = "; ".join(dict.fromkeys(f"{check.what}: {check.found}" for check in skipped))
        text += f"{', ' if text else ''}not checked: {reasons}"
    return text


def _columns(rows: list[tuple[str, str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]).rstrip()
        for row in rows
    ]


def to_json(checks: list[Check], moment: str) -> str:
    """The whole verdict; `moment` is an ISO 8601 time."""
    failed = failures(checks)
    document = {
        "time": moment,
        "ok": not failed,
        "verdict": verdict(checks),
        "first_failing_layer": failed[0].layer if failed else None,
        "checks": [asdict(check) for check in checks],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_junit(checks: list[Check], moment: str) -> str:
    """JUnit XML as CI systems read it: a test suite per layer, a test case per check."""
    root = ElementTree.Element("testsuites", name="tortie verify", tests=str(len(checks)))
    root.set("failures", str(len(failures(checks))))
    root.set("errors", "0")
    for layer in LAYERS:
        of_layer = [check for check in checks if check.layer == layer]
        if not of_layer:
            continue
        suite = ElementTree.SubElement(
            root, "testsuite", name=layer, tests=str(len(of_layer)), timestamp=moment
        )
        suite.set("failures", str(len(failures(of_layer))))
        suite.set("errors", "0")
        suite.set("skipped", str(sum(check.status == NOT_CHECKED for check in of_layer)))
        for check in of_layer:
            _test_case(suite, check)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _test_case(suite: ElementTree.Element, check: Check) -> None:
    name = _clean(f"{check.subject}: {check.what}")
    case = ElementTree.SubElement(suite, "testcase", classname=f"verify.{check.layer}", name=name)
    if check.status == FAILED:
        message = _clean(f"expected {check.expected}, found {check.found}")
        ElementTree.SubElement(case, "failure", message=message, type="verify").text = _clean(check.hint)
    elif check.status == NOT_CHECKED:
        ElementTree.SubElement(case, "skipped", message=_clean(check.found))


def _clean(text: str) -> str:
    return text.translate(_NOT_XML)
