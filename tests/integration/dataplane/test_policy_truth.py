"""Policies as people write them, the network as it then is: every pair of nine pods, as predicted.

Objects go through the policy core and the dataplane into the kernel; the prediction comes from an evaluator
that shares nothing with them (policy_worlds).
"""

import random
from collections.abc import Iterator

import pytest

from tests.integration.dataplane.policy_lab import PolicyLab, policy_lab
from tests.integration.dataplane.policy_worlds import (
    NAMES,
    NAMESPACES,
    TIERS,
    Policy,
    calico_policy,
    kubernetes_policy,
    predict,
    world,
)
from tests.unit.policy import objects
from tortie.dataplane.policy import PolicyDataplane
from tortie.model.endpoints import workload_endpoint
from tortie.model.policies import GlobalNetworkPolicy, NetworkPolicy
from tortie.model.policy_natives import KubernetesNetworkPolicy
from tortie.model.resources import Resource
from tortie.policy.engine import PolicyEngine

pytestmark = pytest.mark.root

ROUNDS = 110  # each with one to five policies of its own, two of the three kinds new in each round
SEEDS = (1, 2)
KINDS: dict[str, type[Resource]] = {
    "KubernetesNetworkPolicy": KubernetesNetworkPolicy,
    "NetworkPolicy": NetworkPolicy,
    "GlobalNetworkPolicy": GlobalNetworkPolicy,
}
PODS = world()


@pytest.fixture(scope="module")
def lab() -> Iterator[PolicyLab]:
    with policy_lab([pod.key for pod in PODS]) as made:
        yield made


def engine_of(lab: PolicyLab) -> PolicyEngine:
    """The engine with the world's namespaces, tiers and pods."""
    engine = PolicyEngine(objects.NODE)
    for name, labels in NAMESPACES.items():
        engine.update(objects.namespace(name, **labels))
    for name, order in TIERS.items():
        engine.update(objects.tier(name, order=order))
    for pod in PODS:
        made = objects.pod(
            pod.name,
            pod.address,
            namespace=pod.namespace,
            labels=pod.labels,
            ports=[(name, NAMES[protocol], number) for name, (protocol, number) in pod.ports.items()],
        )
        engine.update(made)
        endpoint = workload_endpoint(made)
        assert endpoint is not None
        lab_pod = lab.pods[pod.key]
        if lab_pod.interface != endpoint.spec.interface_name:  # the name that the CNI plugin would give
            lab.node.ip("link", "set", lab_pod.interface, "name", endpoint.spec.interface_name)
            lab_pod.interface = endpoint.spec.interface_name
    return engine


@pytest.mark.parametrize("seed", SEEDS)
def test_connections_are_as_an_independent_evaluator_predicts(lab: PolicyLab, seed: int) -> None:
    dice = random.Random(seed)
    engine = engine_of(lab)
    dataplane = PolicyDataplane()
    everything = lab.everything()
    in_force: list[Policy] = []
    opened, closed, made = 0, 0, 0
    with lab.on_node:
        engine.flush()
        dataplane.sync(engine.state())
    for number in range(ROUNDS):
        for policy in dice.sample(in_force, min(len(in_force), dice.randrange(3))):
            in_force.remove(policy)
            engine.remove(KINDS[policy.kind], policy.namespace, policy.name)
        for _ in range(dice.randrange(1, 3)):
            if len(in_force) >= 6:
                break
            made += 1
            policy = (
                kubernetes_policy(dice, f"kube-{made}")
                if dice.random() < 0.5
                else calico_policy(dice, f"calico-{made}", dice.choice((made / 10, 5000 + made / 10)))
            )
            in_force.append(policy)
            engine.update(objects.of_json(KINDS[policy.kind], policy.name, policy.namespace, policy.spec))
        delta = engine.flush()
        with lab.on_node:
            if number % 10:
                dataplane.apply(delta)
            else:
                dataplane.sync(engine.state())
        expected = predict(in_force, PODS)
        found = lab.try_all(everything, expected)
        wrong = sorted(expected ^ found)
        assert not wrong, (number, wrong[:5], [(item.kind, item.namespace, item.spec) for item in in_force])
        opened += len(found)
        closed += len(everything) - len(found)
    # Neither "everything open" nor "everything closed" would have passed for an answer.
    assert made >= ROUNDS
    assert min(opened, closed) > 0.1 * (opened + closed)
    with lab.on_node:
        assert dataplane.check() == []
