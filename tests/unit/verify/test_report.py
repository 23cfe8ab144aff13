"""The report: a table for people, JSON for programs, JUnit for CI."""

import json
from xml.etree import ElementTree

from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import LAYERS, Check
from ansible_collections.tortie.cluster.plugins.module_utils.verify_report import table, to_json, to_junit

from tests.unit.verify.healthy import case

MOMENT = "2026-11-22T10:00:00+00:00"


def broken_checks() -> list[Check]:
    broken = case()
    broken.facts["worker-01"]["routes"].pop()
    return broken.judge()


def test_junit_is_well_formed_and_counts_what_it_holds() -> None:
    checks = broken_checks()
    root = ElementTree.fromstring(to_junit(checks, MOMENT))
    assert [suite.get("name") for suite in root] == list(LAYERS)
    assert root.get("tests") == str(len(checks)) == str(len(root.findall(".//testcase")))
    assert root.get("failures") == "1" == str(len(root.findall(".//failure")))
    for suite in root:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))


def test_junit_failure_says_expected_and_found_and_belongs_to_its_layer() -> None:
    root = ElementTree.fromstring(to_junit(broken_checks(), MOMENT))
    failed = [case for case in root.iter("testcase") if case.find("failure") is not None]
    assert [case.get("classname") for case in failed] == ["verify.route"]
    failure = failed[0].find("failure")
    assert failure is not None
    assert "found no route" in str(failure.get("message"))
    assert "ip route show" in str(failure.text)


def test_junit_stays_well_formed_whatever_a_message_contains() -> None:
    odd = Check("pod", "a", "b", "TCP <&\"'>", "failed", "]]>", "\x00\x1b[31mred\x07", "look & see")
    root = ElementTree.fromstring(to_junit([odd], MOMENT))
    assert root.findall(".//testcase")[0].get("name") == "a > b: TCP <&\"'>"


def test_json_names_the_first_failing_layer_and_holds_every_check() -> None:
    checks = broken_checks()
    document = json.loads(to_json(checks, MOMENT))
    assert (document["ok"], document["first_failing_layer"], document["time"]) == (False, "route", MOMENT)
    assert len(document["checks"]) == len(checks)
    failed = [check for check in document["checks"] if check["status"] == "failed"]
    assert [(check["layer"], check["node"], check["peer"]) for check in failed] == [
        ("route", "worker-01", "master-01")
    ]


def test_json_of_a_sound_cluster_names_no_layer() -> None:
    document = json.loads(to_json(case().judge(), MOMENT))
    assert (document["ok"], document["first_failing_layer"]) == (True, None)


def test_table_has_a_row_per_layer_and_node_or_pair() -> None:
    text = table(case().judge())
    rows = [line.split() for line in text.splitlines()[1:]]
    assert ["route", "master-01", ">", "worker-01", "OK", "1", "of", "1", "hold"] in rows
    assert ["tunnel", "worker-01", "OK", "7", "of", "7", "hold"] in rows
    assert "FAIL" not in text


def test_table_tells_failures_in_full_below_the_rows() -> None:
    text = table(broken_checks())
    assert ["route", "worker-01", ">", "master-01", "FAIL"] in [
        line.split()[:5] for line in text.splitlines()
    ]
    assert "route: worker-01 > master-01: 10.5.0.0/26\n    expected  via 10.5.0.0 dev vxlan.calico" in text
    assert "\n    found     no route\n" in text


def test_table_gives_the_reason_for_what_was_not_checked() -> None:
    assert "not checked: kubernetes.default.svc: the cluster has no kube-dns service" in table(case().judge())


def test_table_of_a_large_cluster_has_a_row_per_layer_and_still_every_failure() -> None:
    many = [Check("route", f"n{i}", f"n{j}", "b", "ok") for i in range(20) for j in range(20)]
    many.append(Check("route", "n1", "n99", "b", "failed", "x", "y", "z"))
    lines = table(many).splitlines()
    assert lines[1].split()[:3] == ["route", "all", "FAIL"]
    assert "route: n1 > n99: b" in lines
    assert len(lines) < 20
