"""The network part of a reset against a real kernel, in a network namespace of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]
NAMESPACE = f"tR-reset-{os.getpid()}"
# Prints what was removed and what failed, after the network's phases of a reset.
RESET = """
import json
from ansible_collections.tortie.cluster.plugins.module_utils import reset_network
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import Machine, Phase, run_phases
from ansible_collections.tortie.cluster.plugins.module_utils.reset_record import Record
record = Record(pool="10.5.0.0/16", nft_tables={tables!r}, nft_chains={chains!r})
machine = Machine(record, ours=True, container=True)
names = ("network", "filters", "empty_chains", "empty_tables")
phases = [Phase(name, getattr(reset_network, name)) for name in names]
outcome = run_phases(phases, machine, look_only={look!r})
print(json.dumps([outcome.done, outcome.failed]))
"""


def inside(*command: str, stdin: str | None = None) -> str:
    """Run a command in the namespace."""
    return subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, *command], input=stdin, capture_output=True, text=True, check=True
    ).stdout


def reset(*names: str, look: bool = False) -> tuple[list[str], list[str]]:
    """(done, failed) of the network's phases in the namespace. names: tables and chains that were there."""
    tables = [name for name in names if name.count(" ") == 1]
    script = RESET.format(tables=tables, chains=[n for n in names if n not in tables], look=look)
    program = ["env", f"PYTHONPATH={ROOT}/collections", sys.executable, "-c", script]
    done, failed = json.loads(inside(*program))
    return done, failed


def kernel() -> dict[str, Any]:
    """Links, routes, rules and tables of the namespace."""
    return {
        "links": [link["ifname"] for link in json.loads(inside("ip", "-json", "link", "show"))],
        "routes": inside("ip", "route", "show", "table", "all"),
        "rules": inside("ip", "rule", "show"),
        "nft": inside("nft", "--stateless", "list", "ruleset"),
    }


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    """A namespace with a link of its own and things of somebody else."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        for command in (
            "sysctl -e -q -w net.ipv6.conf.default.disable_ipv6=1",  # its routes come and go by themselves
            "ip link set lo up",
            "ip link add eth0 type veth peer name peer0",
            "ip link set eth0 up",
            "ip link set peer0 up",
            "ip address add 10.30.200.1/24 dev eth0",
            "ip link add calibration type veth peer name another0",
            "ip route add blackhole 198.51.100.0/25 protocol bird",
            "ip route add 203.0.113.0/24 via 10.30.200.2 protocol static",
            "ip rule add from 198.51.100.7 lookup main priority 300",
            "nft add table inet another",
        ):
            inside(*command.split())
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def make_ours() -> None:
    """What agent, BIRD, kube-proxy and portmap would have made."""
    for command in (
        "ip link add cali0123456789a type veth peer name pod0",
        "ip link set cali0123456789a up",
        "ip route add 10.5.1.1/32 dev cali0123456789a protocol 80",
        "ip link add vxlan.calico type vxlan id 4096 dstport 4789 local 10.30.200.1",
        "ip link set vxlan.calico up",
        "ip route add 10.5.2.0/26 via 10.5.2.0 dev vxlan.calico onlink protocol 80",
        "ip route add blackhole 10.5.1.0/26 protocol 80",
        "ip route add 10.5.3.0/26 via 10.30.200.3 dev eth0 protocol bird",
        "ip route add 10.5.4.0/26 via 10.30.200.3 dev eth0 protocol 80 table 100",
        "ip rule add from 10.5.0.0/16 lookup 100 priority 200 protocol 80",
        "nft add table ip tortie_nat",
    ):
        inside(*command.split())
    inside("iptables-nft-restore", "--noflush", stdin=KUBERNETES)


KUBERNETES = """\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A
COMMIT
"""


def test_everything_of_ours_goes_and_the_rest_is_as_before() -> None:
    before = kernel()
    make_ours()
    assert kernel() != before
    done, failed = reset("inet another")
    assert failed == []
    assert len(done) > 8
    assert kernel() == before
    assert reset("inet another") == ([], [])


def test_looking_changes_nothing() -> None:
    make_ours()
    before = kernel()
    done, failed = reset(look=True)
    assert done
    assert failed == []
    assert kernel() == before


def test_table_with_rules_of_somebody_else_stays_with_them() -> None:
    inside("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "198.51.100.0/24", "-j", "MASQUERADE")
    before = kernel()
    make_ours()
    reset("ip nat", "ip nat POSTROUTING")
    assert kernel() == before


def test_rules_that_somebody_has_added_since_stay() -> None:
    make_ours()
    inside("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "198.51.100.0/24", "-j", "MASQUERADE")
    reset()
    nft = kernel()["nft"]
    assert "198.51.100.0/24" in nft
    assert "PREROUTING" not in nft


def test_empty_table_that_was_there_before_stays() -> None:
    inside("iptables-nft", "-t", "nat", "-N", "KUBE-OLD")
    inside("iptables-nft", "-t", "nat", "-X", "KUBE-OLD")
    before = kernel()["nft"]
    make_ours()
    reset("ip nat")
    assert kernel()["nft"] == before


def test_chain_with_a_policy_of_somebody_else_keeps_its_table() -> None:
    make_ours()
    inside("iptables-nft", "-N", "KUBE-FIREWALL")
    inside("iptables-nft", "-A", "INPUT", "-j", "KUBE-FIREWALL")
    inside("iptables-nft", "-P", "INPUT", "DROP")
    assert reset()[1] == []
    nft = kernel()["nft"]
    assert "policy drop" in nft
    assert "KUBE" not in nft
    assert "table ip nat" not in nft
