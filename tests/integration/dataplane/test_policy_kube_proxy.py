"""Beside the real kube-proxy: services work, and policy decides about the pod behind them."""

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from tests.components import apiserver, kube_proxy
from tests.components.apiserver import ApiServer
from tests.integration.dataplane.policy_lab import NODE_ADDRESS, PORTS, PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import closed_state
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.ruleset import Settings

pytestmark = pytest.mark.root

SERVICE, EMPTY, NODE_PORT = "10.96.0.10", "10.96.0.11", 30080
LATE = {"nft": "10.96.0.12", "legacy": "10.96.0.13"}
SLICES = "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"


@pytest.fixture(scope="module")
def program() -> Path:
    return kube_proxy.kube_proxy()


@pytest.fixture(scope="module")
def lab(program: Path) -> Iterator[PolicyLab]:
    with policy_lab(("a", "b", "c")) as made, made.on_node:
        yield made


@pytest.fixture(scope="module")
def server(lab: PolicyLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """On the node, with a service of pod a and one without endpoints."""
    prefix = ("ip", "netns", "exec", lab.node.name)
    directory = tmp_path_factory.mktemp("api")
    with apiserver.running(directory, address=NODE_ADDRESS, prefix=prefix) as made:
        made.request("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
        made.request("POST", SERVICES, service("empty", EMPTY))
        publish(made, "web", SERVICE, lab)
        yield made


def publish(server: ApiServer, name: str, address: str, lab: PolicyLab) -> None:
    """A service with pod a behind it."""
    server.request("POST", SERVICES, service(name, address))
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1beta1",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [lab.pods["a"].address], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": PORTS[0], "protocol": "TCP"}],
    }
    server.request("POST", SLICES, slice_)


def service(name: str, address: str) -> dict[str, Any]:
    port: dict[str, Any] = {"name": "http", "port": 80, "targetPort": PORTS[0]}
    if name == "web":
        port["nodePort"] = NODE_PORT
    kind = "NodePort" if name == "web" else "ClusterIP"
    return {"metadata": {"name": name}, "spec": {"type": kind, "clusterIP": address, "ports": [port]}}


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_services_of_the_real_kube_proxy_work_and_policy_sees_who_asks_the_pod(
    lab: PolicyLab, server: ApiServer, program: Path, tmp_path: Path, backend: str
) -> None:
    prefix = ("ip", "netns", "exec", lab.node.name)
    dataplane = PolicyDataplane(Settings(service_networks=(IPv4Network("10.96.0.0/12"),)))
    dataplane.sync(closed_state(lab, "a", friends=["b"]))
    save = (f"iptables-{backend}-save",)
    try:
        with kube_proxy.running(
            program,
            server,
            tmp_path,
            backend=backend,
            node="n1",
            prefix=prefix,
            ready=lambda: through(lab, "b", SERVICE, 80),
        ):
            assert not through(lab, "c", SERVICE, 80)
            assert not through(lab, "b", EMPTY, 80)
            assert through(lab, "b", NODE_ADDRESS, NODE_PORT)
            assert not through(lab, "c", NODE_ADDRESS, NODE_PORT)
            assert dataplane.check() == []
            before = rules(lab, *save)
            lab.node.exec("nft", "flush", "table", "inet", "tortie_policy")
            assert dataplane.repair()
            assert rules(lab, *save) == before
            # A service that comes later: kube-proxy writes its tables anew, and not ours.
            publish(server, f"late-{backend}", LATE[backend], lab)
            eventually(lambda: through(lab, "b", LATE[backend], 80))
            assert not through(lab, "c", LATE[backend], 80)
            assert dataplane.check() == []
        # Without kube-proxy its rules stay, and ours do.
        assert through(lab, "b", SERVICE, 80)
        assert not through(lab, "c", SERVICE, 80)
    finally:
        dataplane.remove()
        for table in ("nat", "filter", "mangle"):
            lab.node.exec("sh", "-c", f"iptables-{backend} -t {table} -F; iptables-{backend} -t {table} -X")


def eventually(condition: Callable[[], bool]) -> None:
    """Until it holds, for a minute at most."""
    for _try in range(600):
        if condition():
            return
        time.sleep(0.1)
    assert condition()


def rules(lab: PolicyLab, *command: str) -> list[str]:
    """Rules without counters and without the time of day."""
    listed = lab.node.exec(*command).splitlines()
    return [line.partition("[")[0] for line in listed if not line.startswith("#")]


def through(lab: PolicyLab, name: str, address: str, port: int) -> bool:
    with lab.pods[name].socket(socket.SOCK_STREAM) as client:
        client.settimeout(0.3)
        return client.connect_ex((address, port)) == 0
