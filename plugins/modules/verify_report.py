#!/usr/bin/python
"""Ansible module: judge the collected facts and write the report."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_report
short_description: Judge the facts of a cluster's network and write the report
version_added: 0.1.0
author: Tortie contributors
description:
  - Compares what nodes, pods and API server say with each other and with the inventory.
  - Writes C(verify.txt) (a table), C(verify.json) and C(verify.xml) (JUnit) into O(directory).
  - It does not fail when a check fails; RV(ok) and RV(verdict) tell.
  - The report is output, not state, and is never reported as changed.
options:
  expect:
    description: What the inventory asks for.
    type: dict
    required: true
    suboptions:
      hosts:
        description: Node address by inventory name; empty where the inventory does not say it.
        type: dict
        required: true
      pool_cidr:
        description: The pool.
        type: str
        default: ""
      block_size:
        description: Prefix length of its blocks; 0 where the inventory does not say it.
        type: int
        default: 0
      encapsulation:
        description: C(ipip), C(vxlan) or C(none).
        type: str
        default: ""
      mode:
        description: C(always) or C(cross-subnet).
        type: str
        default: ""
      mtu:
        description: Bytes, or C(auto).
        type: str
        default: auto
      autodetection:
        description: IP_AUTODETECTION_METHOD.
        type: str
        default: ""
      nat_outgoing:
        description: Whether the pool masquerades.
        type: bool
  cluster:
    description: What M(tortie.cluster.verify_cluster) returned; empty when it could not run.
    type: dict
    required: true
  nodes:
    description: By inventory name, the result of M(tortie.cluster.network_facts); empty when there is none.
    type: dict
    required: true
  probes:
    description: By inventory name, the result of M(tortie.cluster.verify_probe); empty when there is none.
    type: dict
    required: true
  directory:
    description: Directory for the files; made when it is not there.
    type: path
    required: true
attributes:
  check_mode:
    description: The files are written in check mode as well.
    support: full
"""

EXAMPLES = r"""
- name: Judge
  tortie.cluster.verify_report:
    expect:
      hosts: {master-01: 10.30.200.1, worker-01: 10.30.200.2}
      pool_cidr: 10.5.0.0/16
    cluster: "{{ cluster_facts.cluster }}"
    nodes: "{{ dict(groups['cluster'] | zip(groups['cluster'] | map('extract', hostvars, 'node'))) }}"
    probes: "{{ dict(groups['cluster'] | zip(groups['cluster'] | map('extract', hostvars, 'probe'))) }}"
    directory: report
  delegate_to: localhost
"""

RETURN = r"""
ok:
  description: Whether no check failed.
  returned: always
  type: bool
verdict:
  description: One sentence; the first failing layer when there is one.
  returned: always
  type: str
table:
  description: The report for people.
  returned: always
  type: str
"""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils.verify_judgement import failures, judge, verdict
from ansible_collections.tortie.cluster.plugins.module_utils.verify_report import table, to_json, to_junit
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    ClusterFacts,
    Expectations,
    NodeFacts,
    ProbeFacts,
)

NO_CLUSTER = ClusterFacts(
    nodes=[],
    affinities=[],
    pools=[],
    agents=[],
    sources=[],
    targets=[],
    unprobed="",
    probe_port=0,
    probe_service=None,
    kubernetes_service=None,
    dns_service=None,
    errors=["the first control plane could not be asked"],
)

EXPECT_SPEC: dict[str, Any] = {
    "hosts": {"type": "dict", "required": True},
    "pool_cidr": {"type": "str", "default": ""},
    "block_size": {"type": "int", "default": 0},
    "encapsulation": {"type": "str", "default": ""},
    "mode": {"type": "str", "default": ""},
    "mtu": {"type": "str", "default": "auto"},
    "autodetection": {"type": "str", "default": ""},
    "nat_outgoing": {"type": "bool"},
}


def expectations(module: AnsibleModule) -> Expectations:
    """The inventory's word in the shape that judgement takes."""
    given = dict(module.params["expect"])
    mtu = given["mtu"]
    if mtu != "auto" and not mtu.isdecimal():
        module.fail_json(msg=f"tortie_mtu is {mtu!r}; give bytes as a number, or auto")
    given["mtu"] = 0 if mtu == "auto" else int(mtu)
    return cast(Expectations, given)


def answers(results: dict[str, dict[str, Any]], key: str) -> dict[str, Any]:
    """The facts inside module results; hosts that gave none (unreachable, failed, skipped) are left out."""
    return {host: result[key] for host, result in results.items() if key in result}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "expect": {"type": "dict", "required": True, "options": EXPECT_SPEC},
            "cluster": {"type": "dict", "required": True},
            "nodes": {"type": "dict", "required": True},
            "probes": {"type": "dict", "required": True},
            "directory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    checks = judge(
        expectations(module),
        cast(ClusterFacts, module.params["cluster"] or NO_CLUSTER),
        cast("dict[str, NodeFacts]", answers(module.params["nodes"], "network")),
        cast("dict[str, ProbeFacts]", answers(module.params["probes"], "probe")),
    )
    moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
    directory = Path(module.params["directory"])
    text = table(checks)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "verify.txt").write_text(f"{text}\n\n{verdict(checks)}\n", encoding="utf-8")
        (directory / "verify.json").write_text(to_json(checks, moment), encoding="utf-8")
        (directory / "verify.xml").write_text(to_junit(checks, moment), encoding="utf-8")
    except OSError as error:
        module.fail_json(
            msg=f"The report cannot be written to {directory}: {error.strerror}; "
            "set verify_report_dir to a directory that can be written"
        )
    module.exit_json(changed=False, ok=not failures(checks), verdict=verdict(checks), table=text)


if __name__ == "__main__":
    main()
