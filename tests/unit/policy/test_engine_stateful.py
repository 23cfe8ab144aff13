"""After any sequence of changes the engine stands where computing from scratch would put it, and whoever
applied its deltas stands there too."""

from ipaddress import ip_address
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.policy.objects import (
    NODE,
    OTHER_NODE,
    account,
    endpoint,
    endpoint_slice,
    global_network_set,
    host_endpoint,
    kubernetes_policy,
    namespace,
    network_set,
    of_json,
    pod,
    tier,
)
from tortie.model.policies import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkPolicy,
    NetworkSet,
    StagedNetworkPolicy,
    Tier,
)
from tortie.model.policy_natives import EndpointSlice, KubernetesNetworkPolicy, Namespace, ServiceAccount
from tortie.model.resources import Pod, Resource
from tortie.policy.delta import apply_delta
from tortie.policy.engine import PolicyEngine
from tortie.policy.local import ANNOTATION_SOURCES
from tortie.policy.snapshot import snapshot
from tortie.policy.state import PolicyState

NAMES = st.sampled_from(["a", "b", "c"])
NAMESPACES = st.sampled_from(["red", "blue"])
LABELS = st.dictionaries(st.sampled_from(["app", "role"]), st.sampled_from(["x", "y"]), max_size=2)
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"])
NETS = st.lists(st.sampled_from(["10.0.0.1/32", "10.0.0.0/24", "192.0.2.0/24"]), max_size=2, unique=True)
PORTS = st.lists(
    st.sampled_from([("http", "TCP", 80), ("http", "TCP", 8080), ("dns", "UDP", 53)]), max_size=2, unique=True
)
SELECTORS = st.sampled_from(
    [
        "",
        "all()",
        "app == 'x'",
        "app != 'x'",
        "role in {'x', 'y'} && !has(app)",
        "has(role) || app == 'y'",
        "app contains 'x'",
        "pcns.team == 'x'",
        "app == 'x' && app == 'y'",
        "projectcalico.org/orchestrator == 'k8s'",
        "broken ==",
    ]
)
NAMESPACE_SELECTORS = st.sampled_from(
    ["", "all()", "global()", "team == 'x'", "projectcalico.org/name == 'red'"]
)
TIERS = st.sampled_from(["", "default", "t1", "t2"])
TYPES = st.lists(st.sampled_from(["Ingress", "Egress"]), max_size=2, unique=True)


@st.composite
def rules(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for _ in range(draw(st.integers(0, 2))):
        side: dict[str, Any] = {
            "selector": draw(SELECTORS),
            "notSelector": draw(st.sampled_from(["", "", "app == 'x'"])),
            "namespaceSelector": draw(NAMESPACE_SELECTORS),
            "nets": draw(st.sampled_from([[], [], ["10.0.0.0/8"]])),
        }
        if draw(st.booleans()):
            side = {"services": {"name": draw(NAMES), "namespace": draw(NAMESPACES)}}
        elif draw(st.booleans()):
            side["ports"] = draw(st.sampled_from([[80], ["http"], ["http", "90:99"], ["dns"]]))
        found.append(
            {
                "action": draw(st.sampled_from(["Allow", "Deny", "Pass", "Log", "Alow"])),
                "protocol": draw(st.sampled_from(["TCP", "UDP", 132])),
                draw(st.sampled_from(["source", "destination"])): side,
            }
        )
    return found


@st.composite
def calico_spec(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "tier": draw(TIERS),
        "order": draw(st.sampled_from([None, 1, 2.5])),
        "selector": draw(SELECTORS),
        "serviceAccountSelector": draw(st.sampled_from(["", "", "kind == 'x'"])),
        "types": draw(TYPES),
        "ingress": draw(rules()),
        "egress": draw(rules()),
    }


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = PolicyEngine(NODE)
        self.objects: dict[tuple[type[Resource], str, str], Resource] = {}
        self.interfaces: dict[str, list[Any]] = {}
        self.seen = PolicyState()
        self.spoofing = False
        self.checks = 0

    def put(self, resource: Resource) -> None:
        key = (type(resource), resource.metadata.namespace, resource.metadata.name)
        self.objects[key] = resource
        self.engine.update(resource)

    def drop(self, kind: type[Resource], space: str, name: str) -> None:
        self.objects.pop((kind, space, name), None)
        self.engine.remove(kind, space, name)

    @rule(
        name=NAMES,
        space=NAMESPACES,
        address=st.lists(ADDRESSES, max_size=2, unique=True),
        labels=LABELS,
        node=st.sampled_from([NODE, NODE, OTHER_NODE]),
        sa=NAMES,
        ports=PORTS,
        phase=st.sampled_from(["Running", "Running", "Succeeded"]),
        sources=st.sampled_from(["", '["192.0.2.0/24"]', "[1]", "x"]),
    )
    def put_pod(
        self,
        name: str,
        space: str,
        address: list[str],
        labels: dict[str, str],
        node: str,
        sa: str,
        ports: list[tuple[str, str, int]],
        phase: str,
        sources: str,
    ) -> None:
        item = pod(
            name, address, namespace=space, labels=labels, node=node, account=sa, ports=ports, phase=phase
        )
        item.metadata.annotations[ANNOTATION_SOURCES] = sources
        self.put(item)

    @rule(name=NAMES, space=NAMESPACES)
    def drop_pod(self, name: str, space: str) -> None:
        self.drop(Pod, space, name)

    @rule(name=NAMES, space=NAMESPACES, address=ADDRESSES, labels=LABELS)
    def register(self, name: str, space: str, address: str, labels: dict[str, str]) -> None:
        self.engine.update_endpoint(endpoint(pod(name, address, namespace=space, labels=labels)))

    @rule(name=NAMES, space=NAMESPACES)
    def unregister(self, name: str, space: str) -> None:
        shown = endpoint(pod(name, "10.9.9.9", namespace=space))
        self.engine.remove_endpoint(shown.spec.interface_name)

    @rule(space=NAMESPACES, labels=st.dictionaries(st.just("team"), st.sampled_from(["x", "y"])))
    def put_namespace(self, space: str, labels: dict[str, str]) -> None:
        self.put(namespace(space, **labels))

    @rule(space=NAMESPACES)
    def drop_namespace(self, space: str) -> None:
        self.drop(Namespace, "", space)

    @rule(name=NAMES, space=NAMESPACES, labels=st.dictionaries(st.just("kind"), st.sampled_from(["x", "y"])))
    def put_account(self, name: str, space: str, labels: dict[str, str]) -> None:
        self.put(account(name, space, **labels))

    @rule(name=NAMES, space=NAMESPACES)
    def drop_account(self, name: str, space: str) -> None:
        self.drop(ServiceAccount, space, name)

    @rule(name=NAMES, space=NAMESPACES, spec=calico_spec(), staged=st.booleans())
    def put_policy(self, name: str, space: str, spec: dict[str, Any], staged: bool) -> None:
        self.put(of_json(StagedNetworkPolicy if staged else NetworkPolicy, name, space, spec))

    @rule(
        name=NAMES,
        spec=calico_spec(),
        wide=st.sampled_from(["", "", "all()", "team == 'x'"]),
        flags=st.sampled_from([{}, {"doNotTrack": True}, {"preDNAT": True}, {"applyOnForward": True}]),
    )
    def put_global_policy(self, name: str, spec: dict[str, Any], wide: str, flags: dict[str, bool]) -> None:
        self.put(of_json(GlobalNetworkPolicy, name, "", spec | flags | {"namespaceSelector": wide}))

    @rule(
        name=NAMES,
        space=NAMESPACES,
        labels=LABELS,
        peer=st.sampled_from(
            [
                {"podSelector": {"matchLabels": {"app": "x"}}},
                {"namespaceSelector": {"matchLabels": {"team": "x"}}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/30"]}},
            ]
        ),
        port=st.sampled_from([80, "http"]),
    )
    def put_kubernetes_policy(
        self, name: str, space: str, labels: dict[str, str], peer: dict[str, Any], port: int | str
    ) -> None:
        self.put(
            kubernetes_policy(
                name,
                space,
                podSelector={"matchLabels": labels},
                ingress=[{"from": [peer], "ports": [{"port": port}]}],
                egress=[{"to": [peer], "ports": [{"port": port}]}],
                policyTypes=["Ingress", "Egress"],
            )
        )

    @rule(
        kind=st.sampled_from([NetworkPolicy, StagedNetworkPolicy, KubernetesNetworkPolicy]),
        name=NAMES,
        space=NAMESPACES,
    )
    def drop_policy(self, kind: type[Resource], name: str, space: str) -> None:
        self.drop(kind, space, name)

    @rule(kind=st.sampled_from([GlobalNetworkPolicy, HostEndpoint, GlobalNetworkSet]), name=NAMES)
    def drop_global(self, kind: type[Resource], name: str) -> None:
        self.drop(kind, "", name)

    @rule(
        name=st.sampled_from(["default", "t1", "t2"]),
        order=st.sampled_from([None, 1, 5]),
        action=st.sampled_from(["Deny", "Pass"]),
    )
    def put_tier(self, name: str, order: int | None, action: str) -> None:
        self.put(tier(name, order=order, defaultAction=action))

    @rule(name=st.sampled_from(["default", "t1", "t2"]))
    def drop_tier(self, name: str) -> None:
        self.drop(Tier, "", name)

    @rule(name=NAMES, space=NAMESPACES, nets=NETS, labels=LABELS)
    def put_network_set(self, name: str, space: str, nets: list[str], labels: dict[str, str]) -> None:
        self.put(network_set(name, nets, labels, space))

    @rule(name=NAMES, nets=NETS, labels=LABELS)
    def put_global_network_set(self, name: str, nets: list[str], labels: dict[str, str]) -> None:
        self.put(global_network_set(name, nets, labels))

    @rule(name=NAMES, space=NAMESPACES)
    def drop_network_set(self, name: str, space: str) -> None:
        self.drop(NetworkSet, space, name)

    @rule(
        name=NAMES,
        labels=LABELS,
        interface=st.sampled_from(["*", "eth0", ""]),
        addresses=st.lists(ADDRESSES, max_size=2, unique=True),
        node=st.sampled_from([NODE, NODE, OTHER_NODE]),
        profiles=st.sampled_from([[], ["projectcalico-default-allow"], ["kns.red"]]),
    )
    def put_host_endpoint(
        self,
        name: str,
        labels: dict[str, str],
        interface: str,
        addresses: list[str],
        node: str,
        profiles: list[str],
    ) -> None:
        self.put(
            host_endpoint(
                name, labels, node=node, interfaceName=interface, expectedIPs=addresses, profiles=profiles
            )
        )

    @rule(addresses=st.lists(ADDRESSES, max_size=2, unique=True))
    def set_interfaces(self, addresses: list[str]) -> None:
        self.interfaces = {"eth0": [], "eth1": [ip_address(text) for text in addresses]}
        self.engine.set_interfaces(self.interfaces)

    @rule(
        name=NAMES,
        service=NAMES,
        space=NAMESPACES,
        addresses=st.lists(ADDRESSES, max_size=2, unique=True),
        ports=st.lists(st.sampled_from([("TCP", 80), ("UDP", 53)]), max_size=2, unique=True),
    )
    def put_slice(
        self, name: str, service: str, space: str, addresses: list[str], ports: list[tuple[str, int]]
    ) -> None:
        self.put(endpoint_slice(name, service, addresses, ports, space))

    @rule(name=NAMES, space=NAMESPACES)
    def drop_slice(self, name: str, space: str) -> None:
        self.drop(EndpointSlice, space, name)

    @rule(allowed=st.booleans())
    def allow_source_spoofing(self, allowed: bool) -> None:
        self.spoofing = allowed
        self.engine.allow_source_spoofing(allowed)

    @rule()
    def flush(self) -> None:
        self.seen = apply_delta(self.seen, self.engine.flush())

    @invariant()
    def stands_where_scratch_would(self) -> None:
        self.checks += 1
        if self.checks % 4:  # let changes pile up between two flushes
            return
        self.flush()
        expected = snapshot(
            self.objects.values(),
            NODE,
            endpoints=self.engine.registered,
            interfaces=self.interfaces,
            source_spoofing=self.spoofing,
        )
        assert self.seen == expected
        assert self.engine.state() == expected
        assert not self.engine.flush()


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    max_examples=30, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
