"""Whatever a user managed to store: reading it never raises, and what is wrong with a rule never opens."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.policy.objects import NODE, namespace, of_json, pod
from tortie.model.policies import GlobalNetworkPolicy, HostEndpoint, NetworkPolicy, NetworkSet
from tortie.model.policy_natives import KubernetesNetworkPolicy
from tortie.model.policy_validation import policy_problems
from tortie.model.resources import Resource
from tortie.policy.engine import PolicyEngine
from tortie.policy.sources import read_policy
from tortie.policy.state import Action, Rule

TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            "",
            "all()",
            "global()",
            "has(a)",
            "a == 'b'",
            "10.0.0.0/8",
            "fd00::/8",
            "::ffff:10.0.0.1/128",
            "1:2",
            "http",
        ]
    ),
)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
PORTS = st.one_of(TEXTS, NUMBERS, st.sampled_from([80, "80:90", "9" * 5000, "²", "1:2:3"]))
TEXT_LISTS = st.lists(TEXTS, max_size=2)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


ENTITIES = some(
    nets=TEXT_LISTS,
    notNets=TEXT_LISTS,
    selector=TEXTS,
    notSelector=TEXTS,
    namespaceSelector=TEXTS,
    ports=st.lists(PORTS, max_size=2),
    notPorts=st.lists(PORTS, max_size=2),
    serviceAccounts=some(names=TEXT_LISTS, selector=TEXTS),
    services=some(name=TEXTS, namespace=TEXTS),
)
RULES = some(
    action=st.one_of(TEXTS, st.sampled_from(["Allow", "Deny", "Log", "Pass"])),
    ipVersion=st.one_of(NUMBERS, st.sampled_from([4, 6])),
    protocol=st.one_of(PORTS, st.sampled_from(["TCP", "ICMP", 17])),
    notProtocol=PORTS,
    icmp=some(type=NUMBERS, code=NUMBERS),
    notICMP=some(type=NUMBERS, code=NUMBERS),
    http=some(methods=TEXT_LISTS),
    source=ENTITIES,
    destination=ENTITIES,
)
SPECS = some(
    tier=TEXTS,
    order=st.one_of(NUMBERS, st.floats(allow_nan=False, allow_infinity=False)),
    selector=TEXTS,
    namespaceSelector=TEXTS,
    serviceAccountSelector=TEXTS,
    types=TEXT_LISTS,
    ingress=st.lists(RULES, max_size=3),
    egress=st.lists(RULES, max_size=3),
    doNotTrack=st.booleans(),
    preDNAT=st.booleans(),
)
LABEL_SELECTORS = some(
    matchLabels=st.dictionaries(TEXTS, TEXTS, max_size=2),
    matchExpressions=st.lists(
        some(
            key=TEXTS,
            operator=st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "x"]),
            values=TEXT_LISTS,
        ),
        max_size=2,
    ),
)
PEERS = some(
    podSelector=LABEL_SELECTORS,
    namespaceSelector=LABEL_SELECTORS,
    ipBlock=st.fixed_dictionaries({"cidr": TEXTS}, optional={"except": TEXT_LISTS}),
)
KUBERNETES_PORTS = some(port=PORTS, protocol=TEXTS, endPort=NUMBERS)
KUBERNETES_SPECS = some(
    podSelector=LABEL_SELECTORS,
    policyTypes=TEXT_LISTS,
    ingress=st.lists(
        st.fixed_dictionaries(
            {},
            optional={"from": st.lists(PEERS, max_size=2), "ports": st.lists(KUBERNETES_PORTS, max_size=2)},
        ),
        max_size=2,
    ),
)
OBJECTS: st.SearchStrategy[Resource] = st.one_of(
    st.builds(of_json, st.just(NetworkPolicy), st.just("x"), st.just("default"), SPECS),
    st.builds(of_json, st.just(GlobalNetworkPolicy), st.just("x"), st.just(""), SPECS),
    st.builds(of_json, st.just(KubernetesNetworkPolicy), st.just("x"), st.just("default"), KUBERNETES_SPECS),
    st.builds(of_json, st.just(NetworkSet), st.just("x"), st.just("default"), some(nets=TEXT_LISTS)),
    st.builds(
        of_json,
        st.just(HostEndpoint),
        st.just("x"),
        st.just(""),
        some(
            node=st.just(NODE),
            interfaceName=TEXTS,
            expectedIPs=TEXT_LISTS,
            profiles=TEXT_LISTS,
            ports=st.lists(some(name=TEXTS, protocol=PORTS, port=NUMBERS), max_size=2),
        ),
    ),
)
WEB = pod("web", ["10.0.0.1", "fd00::1"], labels={"a": "b"})


@given(OBJECTS)
def test_any_object_is_taken_and_everything_wrong_is_reported(resource: Resource) -> None:
    engine = PolicyEngine(NODE)
    for item in (namespace("default"), WEB, resource):
        engine.update(item)
    engine.flush()
    reported = {problem.problem.field for problem in engine.problems()}
    assert {problem.field for problem in policy_problems(resource)} <= reported


@given(RULES.filter(lambda rule: rule.get("action") not in ("Allow", "Log")))
def test_rule_that_does_not_allow_stays_in_its_place(rule: dict[str, Any]) -> None:
    policy = of_json(GlobalNetworkPolicy, "x", "", {"ingress": [rule, {"action": "Allow"}]})
    compiled, unreadable = read_policy(policy)
    assert compiled is not None
    first, second = compiled.rules.ingress
    assert second == Rule(Action.ALLOW)
    if unreadable:
        assert first == Rule(Action.DENY)
    else:
        assert first.action == rule["action"]
