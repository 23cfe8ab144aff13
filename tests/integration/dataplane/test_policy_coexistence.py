"""Beside kube-proxy, firewalls and other tables: nothing of theirs changes, and policy still sees the pod."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from tests.integration.dataplane.policy_lab import PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import closed_state, open_state
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import Settings

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[PolicyLab]:
    with policy_lab(("a", "b", "c")) as made, made.on_node:
        yield made


def shell(lab: PolicyLab, script: str) -> str:
    """Run a script on the node; it must succeed."""
    return lab.node.exec("sh", "-c", script)


KUBE_PROXY = """*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SVC - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC
-A KUBE-SVC -p tcp -j DNAT --to-destination {server}:8080
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
"""
KUBE_PROXY_NFT = """
table ip kube-proxy {{
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ 10.96.0.10 . tcp . 80 : goto svc }} }}
  chain svc {{
    meta l4proto tcp dnat to {server}:8080
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    ip daddr . meta l4proto . th dport vmap @service-ips
  }}
  chain filter-forward {{
    type filter hook forward priority filter;
    ct state invalid drop
  }}
}}
"""
FIREWALLD = """
table inet firewalld {
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "cali*" accept
    reject with icmpx admin-prohibited
  }
}
"""


LIST_EVERYTHING = "nft list ruleset; iptables-legacy-save | grep -v ^# | sed 's/\\[.*//'"


@pytest.mark.parametrize("proxy", ["iptables-nft-restore", "iptables-legacy-restore", "nft"])
def test_services_work_beside_kube_proxy_and_a_firewall_and_policy_sees_the_pod(
    lab: PolicyLab, proxy: str
) -> None:
    server = lab.pods["a"].address
    text = (KUBE_PROXY_NFT if proxy == "nft" else KUBE_PROXY).format(server=server)
    load = f"nft -f - <<'X'\n{text}X" if proxy == "nft" else f"{proxy} <<'X'\n{text}X"
    dataplane = PolicyDataplane(Settings(service_networks=(IPv4Network("10.96.0.0/12"),)))
    try:
        shell(lab, load)
        shell(lab, f"nft -f - <<'X'\n{FIREWALLD}X")
        before = shell(lab, LIST_EVERYTHING)
        dataplane.sync(closed_state(lab, "a", friends=["b"]))
        assert through_service(lab, "b")
        assert not through_service(lab, "c")
        assert not through_service(lab, "b", "10.96.0.11")  # a service without endpoints
        dataplane.remove()
        after = shell(lab, LIST_EVERYTHING)
        assert without_counters(after) == without_counters(before)
    finally:
        for table in ("nat", "filter"):
            shell(lab, f"iptables-legacy -t {table} -F; iptables-legacy -t {table} -X")


def without_counters(listing: str) -> list[str]:
    return [line.partition("counter packets")[0] for line in listing.splitlines()]


def through_service(lab: PolicyLab, name: str, address: str = "10.96.0.10") -> bool:
    with lab.pods[name].socket(socket.SOCK_STREAM) as client:
        client.settimeout(0.3)
        return client.connect_ex((address, 80)) == 0


def test_tables_of_others_stay(lab: PolicyLab) -> None:
    lab.node.exec(
        "nft", "add table inet theirs; add chain inet theirs c { type filter hook forward priority 0; }"
    )
    before = lab.node.exec("nft", "list", "table", "inet", "theirs")
    dataplane = PolicyDataplane()
    dataplane.sync(open_state(lab))
    dataplane.sync(closed_state(lab, "a"))
    dataplane.remove()
    assert lab.node.exec("nft", "list", "table", "inet", "theirs") == before
