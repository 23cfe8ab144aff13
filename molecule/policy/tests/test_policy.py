"""Who reaches whom under Kubernetes' and Calico's policies. Every test leaves the cluster without any."""

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_fixtures import KUBECTL, get_json
from world import (
    CLIENTS,
    HOST_PORT,
    MASTER,
    NODE_PORT,
    SERVER,
    WORKER,
    Place,
    apply,
    calico,
    connects,
    delete,
    host_connects,
    node,
    policy,
    populate,
    settle,
)

OPEN = dict.fromkeys(CLIENTS, True)
CLOSED = dict.fromkeys(CLIENTS, False)
DENY = policy("deny", SERVER.namespace, policyTypes=["Ingress"])
PORTS = (19998, 19999)


@pytest.fixture(scope="module", name="pods")
def _pods() -> dict[Place, str]:
    return populate()


@pytest.fixture(autouse=True)
def _without_policies() -> Iterator[None]:
    yield
    node(MASTER).check_output(f"{KUBECTL} delete networkpolicies.networking.k8s.io --all -A")
    for kind in ("networkpolicies", "globalnetworkpolicies", "globalnetworksets", "hostendpoints"):
        scope = "-A" if kind == "networkpolicies" else ""
        node(MASTER).check_output(f"{KUBECTL} delete {kind}.crd.projectcalico.org --all {scope}")


def reach(pods: dict[Place, str], target: Place = SERVER) -> dict[str, bool]:
    """Which client reaches the target's port."""
    return {
        name: connects(pods[client], client.node, pods[target])
        for name, client in CLIENTS.items()
        if client != target
    }


def only(*names: str) -> dict[str, bool]:
    """Those clients, and no other."""
    return {name: name in names for name in CLIENTS}


def test_without_policy_everybody_reaches_everybody(pods: dict[Place, str]) -> None:
    settle(lambda: reach(pods), OPEN)


def test_default_deny_closes_a_pod_to_pods_and_not_to_its_own_node(pods: dict[Place, str]) -> None:
    apply(DENY)
    settle(lambda: reach(pods), CLOSED)
    # kubelet's probes come from there.
    assert host_connects(WORKER, pods[SERVER], 8080)
    assert not host_connects(MASTER, pods[SERVER], 8080)
    ready = get_json(node(MASTER), f"pod {SERVER.name} -n {SERVER.namespace}")["status"]["conditions"]
    assert {item["type"]: item["status"] for item in ready}["Ready"] == "True"


def test_deletion_of_the_policy_opens_again(pods: dict[Place, str]) -> None:
    apply(DENY)
    settle(lambda: reach(pods), CLOSED)
    delete(DENY)
    settle(lambda: reach(pods), OPEN)


def test_namespace_selector_and_pod_selector_allow_whom_they_select(pods: dict[Place, str]) -> None:
    peers: list[tuple[dict[str, Any], dict[str, bool]]] = [
        ({"namespaceSelector": {"matchLabels": {"colour": "green"}}}, only("green")),
        ({"podSelector": {"matchLabels": {"app": "client"}}}, only("red")),
        (
            {
                "namespaceSelector": {"matchExpressions": [{"key": "colour", "operator": "Exists"}]},
                "podSelector": {"matchLabels": {"app": "client"}},
            },
            OPEN,
        ),
        ({"namespaceSelector": {"matchLabels": {"colour": "none"}}}, CLOSED),
    ]
    for peer, wanted in peers:
        # Each is an update of the same object.
        apply(DENY, policy("allow", SERVER.namespace, ingress=[{"from": [peer]}]))
        settle(lambda: reach(pods), wanted)


def test_change_of_a_label_changes_who_is_selected(pods: dict[Place, str]) -> None:
    peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"guest": "yes"}}}
    apply(policy("guests", SERVER.namespace, ingress=[{"from": [peer]}]))
    settle(lambda: reach(pods), CLOSED)
    blue = CLIENTS["blue"]
    label = f"{KUBECTL} label pod {blue.name} -n {blue.namespace} --overwrite"
    node(MASTER).check_output(f"{label} guest=yes")
    settle(lambda: reach(pods), only("blue"))
    node(MASTER).check_output(f"{label} guest-")
    settle(lambda: reach(pods), CLOSED)


def test_named_port_stands_for_its_number(pods: dict[Place, str]) -> None:
    for name, wanted in (("web", OPEN), ("other", CLOSED)):
        apply(policy("port", SERVER.namespace, ingress=[{"ports": [{"protocol": "TCP", "port": name}]}]))
        settle(lambda: reach(pods), wanted)


def test_egress_to_a_network_leaves_out_what_is_excepted(pods: dict[Place, str]) -> None:
    block = {"cidr": "0.0.0.0/0", "except": [f"{pods[SERVER]}/32"]}
    apply(policy("egress", "green", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block}]}]))
    settle(lambda: reach(pods), only("red", "blue"))
    assert connects(pods[CLIENTS["green"]], MASTER, pods[CLIENTS["blue"]])


def test_calicos_order_decides_between_allow_and_deny(pods: dict[Place, str]) -> None:
    deny = calico(
        "NetworkPolicy",
        "deny-green",
        SERVER.namespace,
        order=10,
        selector="app == 'server'",
        types=["Ingress"],
        ingress=[{"action": "Deny", "source": {"namespaceSelector": "colour == 'green'"}}],
    )
    allow = calico(
        "GlobalNetworkPolicy",
        "allow-all",
        order=20,
        selector="app == 'server'",
        types=["Ingress"],
        ingress=[{"action": "Allow"}],
    )
    apply(deny, allow)
    settle(lambda: reach(pods), only("red", "blue"))
    allow["spec"]["order"] = 5
    apply(allow)
    settle(lambda: reach(pods), OPEN)


def test_global_network_set_is_selected_by_its_labels(pods: dict[Place, str]) -> None:
    members = calico("GlobalNetworkSet", "visitors", nets=[f"{pods[CLIENTS['blue']]}/32"])
    members["metadata"]["labels"] = {"visitors": "yes"}
    rule = {"action": "Allow", "source": {"selector": "visitors == 'yes'", "namespaceSelector": "global()"}}
    apply(
        members,
        calico(
            "GlobalNetworkPolicy", "visitors", selector="app == 'server'", types=["Ingress"], ingress=[rule]
        ),
    )
    settle(lambda: reach(pods), only("blue"))


def test_host_port_and_node_port_are_no_way_around(pods: dict[Place, str]) -> None:
    nodes = get_json(node(MASTER), "nodes")["items"]
    address = {
        item["metadata"]["name"]: next(
            held["address"] for held in item["status"]["addresses"] if held["type"] == "InternalIP"
        )
        for item in nodes
    }

    def doors() -> dict[int, bool]:
        return {port: host_connects(MASTER, address[WORKER], port) for port in (HOST_PORT, NODE_PORT)}

    settle(doors, {HOST_PORT: True, NODE_PORT: True})
    apply(DENY)
    settle(doors, {HOST_PORT: False, NODE_PORT: False})
    source = {"ipBlock": {"cidr": f"{address[MASTER]}/32"}}
    apply(policy("from-master", SERVER.namespace, ingress=[{"from": [source]}]))
    settle(doors, {HOST_PORT: True, NODE_PORT: True})
    assert reach(pods) == CLOSED


def test_host_endpoint_closes_a_port_of_the_machine_and_leaves_the_cluster_alone(
    pods: dict[Place, str],
) -> None:
    worker = node(WORKER)
    address = get_json(node(MASTER), f"node {WORKER}")["status"]["addresses"][0]["address"]
    for port in PORTS:
        worker.check_output(
            f"systemd-run --collect --unit=door-{port} python3 -m http.server {port} --directory /mnt"
        )

    def doors() -> list[bool]:
        return [
            node(MASTER).run(f"curl -sS --max-time 2 -o /dev/null http://{address}:{port}/").rc == 0
            for port in PORTS
        ]

    try:
        settle(doors, [True, True])
        closed = {"action": "Deny", "protocol": "TCP", "destination": {"ports": [PORTS[1]]}}
        apply(
            calico(
                "GlobalNetworkPolicy",
                "machine",
                selector="role == 'machine'",
                types=["Ingress", "Egress"],
                ingress=[closed, {"action": "Allow"}],
                egress=[{"action": "Allow"}],
            )
        )
        endpoint = calico("HostEndpoint", "worker", node=WORKER, interfaceName="*", expectedIPs=[address])
        endpoint["metadata"]["labels"] = {"role": "machine"}
        apply(endpoint)
        settle(doors, [True, False])
        settle(lambda: reach(pods), OPEN)
        states = get_json(node(MASTER), "nodes")["items"]
        assert all(
            condition["status"] == "True"
            for item in states
            for condition in item["status"]["conditions"]
            if condition["type"] == "Ready"
        )
        delete(endpoint)
        settle(doors, [True, True])
    finally:
        for port in PORTS:
            worker.run(f"systemctl stop door-{port}")
