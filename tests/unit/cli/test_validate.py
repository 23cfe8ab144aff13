"""`validate`: every error with file, line, field and rule."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tortie.cli.main import main

GOOD = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: p1
spec:
  cidr: 10.9.0.0/16
"""
BAD = """\
# two documents
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: p1
spec:
  cidr: 10.0.0.0/8
  natOutgoin: true
  blockSize: "26"
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicyList
items:
- metadata: {name: web}
  spec:
    ingress:
    - action: Allw
      protocol: TCP
      source:
        selector: "a == "
      destination:
        ports: [10:20, 99999]
    - action: Allow
      http: {methods: [GET]}
"""


def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    result = CliRunner().invoke(main, ["validate", *words], input=stdin)
    return result.exit_code, result.stdout, result.stderr


def test_correct_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text(GOOD)
    assert run("-f", str(path)) == (0, "Successfully validated 1 'IPPool' resource(s)\n", "")


def test_every_error_is_named_with_line_field_and_rule(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(BAD)
    status, stdout, stderr = run("-f", str(path))
    assert (status, stdout) == (1, "")
    lines = [line.removeprefix(f"{path}:") for line in stderr.splitlines()]
    assert lines[:5] == [
        "8 (document 1): IPPool p1: spec.natOutgoin 'true' is an unknown field; did you mean natOutgoing?",
        "9 (document 1): IPPool p1: spec.blockSize '26' must be a whole number",
        "17 (document 2): NetworkPolicy web: spec.ingress[0].action 'Allw' must be one of Allow, Deny, Log, "
        "Pass",
        "20 (document 2): NetworkPolicy web: spec.ingress[0].source.selector 'a == ' must be a selector, "
        "but at character 6: expected a string in quotes",
        "22 (document 2): NetworkPolicy web: spec.ingress[0].destination.ports[1] '99999' must be a port "
        "from 1 to 65535, a range such as '80:90', or the name of a port",
    ]
    assert lines[5].startswith("24 (document 2): NetworkPolicy web: spec.ingress[1].http")
    assert "nothing on the data path reads HTTP" in lines[5]
    assert lines[-1] == "Error: 6 errors in 2 of 2 object(s)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "IPPoool"}, "IPPoool p1: kind 'IPPoool' is no kind; did you mean IPPool?"),
        ({"kind": None}, "kind is no kind; known are: BGPConfiguration, "),
        (
            {"apiVersion": "crd.projectcalico.org/v1"},
            "must be projectcalico.org/v3; other objects are for kubectl",
        ),
        ({"apiVersion": None}, "apiVersion is missing; it must be projectcalico.org/v3"),
        ({"metadata": None}, "metadata must be a mapping with a name"),
        ({"metadata": {}}, "metadata.name must be a name"),
        ({"metadata": {"name": 5}}, "metadata.name '5' must be a name"),
        ({"metadata": {"name": "Big_Name"}}, "metadata.name 'Big_Name' must be"),
        ({"metadata": {"name": "p1", "namespace": "x"}}, "must be left out: IPPool is not namespaced"),
        (
            {"metadata": {"name": "p1", "labels": {"a": 1}}},
            "metadata.labels.a '1' must be text: put it in quotes",
        ),
        ({"metadata": {"name": "p1", "lables": {}}}, "is an unknown field; did you mean labels?"),
        ({"spec": []}, "spec '[]' must be a mapping"),
        ({"spec": {}}, "spec.cidr is missing; it is required"),
        ({"sepc": {}}, "sepc '{}' is an unknown field; did you mean spec?"),
    ],
    ids=str,
)
def test_outline_is_checked(change: dict[str, object], message: str) -> None:
    body = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "p1"},
        "spec": {"cidr": "10.9.0.0/16"},
    } | change
    text = json.dumps({key: value for key, value in body.items() if value is not None}, indent=1)
    status, _stdout, stderr = run("-f", "-", stdin=text)
    assert status == 1
    assert message in stderr
    assert stderr.startswith("standard input:")


FELIX = GOOD.replace("IPPool", "FelixConfiguration").replace("p1", "default")


def test_one_warning_names_the_settings_that_the_agent_does_not_heed() -> None:
    fields = "vxlanMTU: 1400\n  serviceLoopPrevention: Reject\n  bpfDSROptoutCIDRs: [10.0.0.0/8]"
    status, stdout, stderr = run("-f", "-", stdin=FELIX.replace("cidr: 10.9.0.0/16", fields))
    assert (status, stdout) == (0, "Successfully validated 1 'FelixConfiguration' resource(s)\n")
    assert stderr == (
        "Warning: standard input:5 (document 1): FelixConfiguration default: spec has settings that this "
        "agent keeps but does not heed: vxlanMTU, bpfDSROptoutCIDRs\n"
    )


def test_misspelt_setting_is_an_error() -> None:
    status, _stdout, stderr = run(
        "-f", "-", stdin=FELIX.replace("cidr: 10.9.0.0/16", "logSeverityScren: Info")
    )
    assert (status, "did you mean logSeverityScreen?" in stderr) == (1, True)


def test_what_an_ipv6_pool_does_not_get_is_warned_about() -> None:
    text = GOOD.replace("10.9.0.0/16", "fd00:9::/48\n  vxlanMode: Always\n  natOutgoing: true")
    status, stdout, stderr = run("-f", "-", stdin=text)
    assert (status, stdout) == (0, "Successfully validated 1 'IPPool' resource(s)\n")
    assert stderr == (
        "Warning: standard input:7 (document 1): IPPool p1: spec.vxlanMode 'Always' has no effect on an IPv6 "
        "pool: this agent has no IPv6 tunnels, and routes the node's own pods only\n"
        "Warning: standard input:8 (document 1): IPPool p1: spec.natOutgoing 'true' has no effect on an IPv6 "
        "pool: this agent translates no IPv6 sources\n"
    )
    assert run("-f", "-", stdin=GOOD.replace("10.9.0.0/16", "10.9.0.0/16\n  vxlanMode: Always"))[2] == ""


def test_defaults_are_filled_in_before_the_rules_are_asked() -> None:
    text = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: raw}
spec: {doNotTrack: true, ingress: [{action: Allow}]}
"""
    assert run("-f", "-", stdin=text)[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "standard input:1 is no YAML"),
        ("a: 1\na: 2\n", "standard input:2 has the key 'a' twice"),
        ("---\njust text\n", "standard input:2 has 'just text' where an object is expected"),
        ("# nothing\n", "- has no objects; --skip-empty allows that"),
    ],
)
def test_file_that_holds_no_objects_is_an_error(text: str, message: str) -> None:
    status, _stdout, stderr = run("-f", "-", stdin=text)
    assert status == 1
    assert message in stderr


def test_empty_file_may_be_allowed() -> None:
    assert run("-f", "-", "--skip-empty", stdin="# nothing\n") == (
        0,
        "Successfully validated 0 resource(s)\n",
        "",
    )


def test_files_of_a_directory_are_read_with_those_below_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.txt").write_text("no document")
    (tmp_path / "below" / "c.yml").write_text(GOOD)
    assert "validated 1 " in run("-f", str(tmp_path))[1]
    assert "validated 2 " in run("-f", str(tmp_path), "-R")[1]
    assert "validated 3 " in run("-f", str(tmp_path), "-R", "-f", str(tmp_path / "a.yaml"))[1]


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "none.yaml cannot be read: No such file" in run("-f", str(tmp_path / "none.yaml"))[2]
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: \xe4\n")
    assert f"{path}:2 is not UTF-8 text" in run("-f", str(path))[2]
