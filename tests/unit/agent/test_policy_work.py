"""Telling the engine what changed: the same policy as from everything anew."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tortie.agent.policy_work import feed
from tortie.agent.sources import Changes
from tortie.model.policy_natives import (
    KubernetesNetworkPolicy,
    KubernetesNetworkPolicyIngressRule,
    KubernetesNetworkPolicySpec,
    KubernetesPeer,
    LabelSelector,
)
from tortie.model.resources import Metadata, Pod, PodIP, PodSpec, PodStatus
from tortie.policy.engine import PolicyEngine

APPS = ("a", "b")
Key = tuple[str, str]
World = dict[type[Any], dict[Key, Any]]


def pod(number: int, app: str) -> Pod:
    return Pod(
        metadata=Metadata(name=f"pod-{number}", namespace="default", labels={"app": app}),
        spec=PodSpec(node_name="n1"),
        status=PodStatus(phase="Running", pod_ips=[PodIP(ip=f"10.0.0.{number + 1}")]),
    )


def policy(number: int, app: str) -> KubernetesNetworkPolicy:
    peer = KubernetesPeer(pod_selector=LabelSelector(match_labels={"app": APPS[number % 2]}))
    return KubernetesNetworkPolicy(
        metadata=Metadata(name=f"policy-{number}", namespace="default"),
        spec=KubernetesNetworkPolicySpec(
            pod_selector=LabelSelector(match_labels={"app": app}),
            policy_types=["Ingress"],
            ingress=[KubernetesNetworkPolicyIngressRule(peers=[peer])],
        ),
    )


MAKERS: dict[type[Any], Callable[[int, str], Any]] = {Pod: pod, KubernetesNetworkPolicy: policy}
steps = st.tuples(st.sampled_from(list(MAKERS)), st.integers(0, 3), st.sampled_from((*APPS, None)))
rounds = st.lists(st.tuples(st.lists(steps, max_size=4), st.booleans()), max_size=8)


def change(world: World, kind: type[Any], number: int, app: str | None) -> Key:
    """Do a step to what there is; app None takes the object away."""
    made = MAKERS[kind](number, app or APPS[0])
    key = (made.metadata.namespace, made.metadata.name)
    if app is None:
        world[kind].pop(key, None)
    else:
        world[kind][key] = made
    return key


@given(rounds)
def test_parts_and_whole_lists_in_any_order_lead_to_the_same_policy(
    script: list[tuple[list[tuple[type[Any], int, str | None]], bool]],
) -> None:
    world: World = {kind: {} for kind in MAKERS}
    fed: World = {kind: {} for kind in MAKERS}
    engine = PolicyEngine("n1")
    for changes, whole in script:
        touched: dict[type[Any], set[Key]] = {kind: set() for kind in MAKERS}
        for kind, number, app in changes:
            touched[kind].add(change(world, kind, number, app))
        for kind, keys in touched.items():
            items = dict(world[kind]) if whole else {key: world[kind].get(key) for key in keys}
            feed(engine, fed[kind], Changes(kind, items, complete=whole))
        engine.flush()
        anew = PolicyEngine("n1")
        for kind, objects in world.items():
            anew.sync(kind, objects)
        anew.flush()
        assert engine.state() == anew.state()
        assert fed == world
