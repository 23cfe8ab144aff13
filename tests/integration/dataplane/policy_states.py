"""States of policy for a lab's pods, in few words."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network

from tests.integration.dataplane.policy_lab import LabPod, PolicyLab
from tortie.policy.state import (
    Action,
    Peer,
    PolicyKey,
    PolicyRules,
    PolicyState,
    Rule,
    SetID,
    SetKind,
    TierRules,
    WorkloadRules,
)

OPEN = PolicyKey("Profile", "open")
# A name that would end a string, a comment and a command wherever it stood in text for nft or a shell.
HOSTILE = "p\"; flush ruleset; $(reboot) `id` ' } #\n\0é"
CLOSED = PolicyKey("NetworkPolicy", HOSTILE, "ns")
FRIENDS = SetID('friends "}; drop')
ALLOW_ALL = PolicyRules((Rule(Action.ALLOW),), (Rule(Action.ALLOW),))
ONLY_FRIENDS = PolicyRules(ingress=(Rule(Action.ALLOW, source=Peer(sets=(FRIENDS,))),))


def workload(pod: LabPod, *policies: PolicyKey, egress: Iterable[PolicyKey] = ()) -> WorkloadRules:
    """A pod, open but for these policies of its ingress and egress."""
    tiers = (TierRules("default", policies, tuple(egress)),) if policies or egress else ()
    return WorkloadRules(pod.interface, (IPv4Network(pod.address),), tiers=tiers, profiles=(OPEN,))


def open_state(lab: PolicyLab) -> PolicyState:
    """Everything is allowed."""
    pods = {pod.interface: workload(pod) for pod in lab.pods.values()}
    return PolicyState(policies={OPEN: ALLOW_ALL}, workloads=pods)


def closed_state(lab: PolicyLab, closed: str, friends: Iterable[str] = ()) -> PolicyState:
    """Only `friends` reach the pod `closed`; everything else is allowed."""
    members = frozenset(IPv4Network(lab.pods[name].address) for name in friends)
    state = open_state(lab)
    pod = lab.pods[closed]
    return replace(
        state,
        sets={FRIENDS: (SetKind.NETWORKS, members)},
        policies={OPEN: ALLOW_ALL, CLOSED: ONLY_FRIENDS},
        workloads={**state.workloads, pod.interface: workload(pod, CLOSED)},
    )


def with_policies(state: PolicyState, policies: Mapping[PolicyKey, PolicyRules]) -> PolicyState:
    """The state with other rules in these policies."""
    return replace(state, policies={**state.policies, **policies})
