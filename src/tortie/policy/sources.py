"""The kinds that are policies, each read into its compiled form."""

from typing import Final

from tortie.model.policies import (
    GlobalNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
)
from tortie.model.policy_natives import KubernetesNetworkPolicy
from tortie.model.problems import Problem
from tortie.model.resources import Resource
from tortie.policy.compile import CompiledPolicy, compile_policy
from tortie.policy.kubernetes import compile_kubernetes
from tortie.policy.state import PolicyKey

PolicyResource = (
    NetworkPolicy
    | GlobalNetworkPolicy
    | KubernetesNetworkPolicy
    | StagedNetworkPolicy
    | StagedGlobalNetworkPolicy
    | StagedKubernetesNetworkPolicy
)
POLICY_SOURCES: Final[tuple[type[Resource], ...]] = (
    NetworkPolicy,
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    StagedNetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
)
_SET: Final = "Set"  # what an empty stagedAction means


def policy_key(kind: type[Resource], namespace: str, name: str) -> PolicyKey:
    """The key's kind is the Python class's name: it keeps Kubernetes' NetworkPolicy apart from Calico's."""
    return PolicyKey(kind.__name__, name, namespace)


def read_policy(resource: PolicyResource) -> tuple[CompiledPolicy | None, list[Problem]]:
    """The compiled policy, or None when it cannot select anybody; and what could not be read in it."""
    key = policy_key(type(resource), resource.metadata.namespace, resource.metadata.name)
    match resource:
        case NetworkPolicy() | GlobalNetworkPolicy():
            return compile_policy(key, resource.spec)
        case StagedNetworkPolicy() | StagedGlobalNetworkPolicy():
            return compile_policy(key, resource.spec, resource.spec.staged_action or _SET)
        case StagedKubernetesNetworkPolicy():
            return compile_kubernetes(key, resource.spec, resource.spec.staged_action or _SET)
        case KubernetesNetworkPolicy():
            return compile_kubernetes(key, resource.spec)
