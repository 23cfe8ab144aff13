"""What the policy core costs in processor time, without the dataplane: one change against all from scratch.

The cluster: 1,000 pods of this node and 4,000 of others in 50 namespaces; 1,000 Kubernetes policies, each for
one application of one namespace, allowing another one in by labels. Run `python -m bench.policy_core`.
"""

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

from bench.measurement import Measurement
from tortie.model.policies import GlobalNetworkPolicy, GlobalNetworkPolicySpec
from tortie.model.policy_natives import (
    KubernetesNetworkPolicy,
    KubernetesNetworkPolicyIngressRule,
    KubernetesNetworkPolicySpec,
    KubernetesPeer,
    KubernetesPolicyPort,
    LabelSelector,
    Namespace,
)
from tortie.model.resources import (
    Container,
    ContainerPort,
    Metadata,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
    Resource,
)
from tortie.policy.engine import PolicyEngine
from tortie.policy.snapshot import snapshot

NODE: Final = "node-0"
NODES: Final = 5
PODS: Final = 5000
POLICIES: Final = 1000
NAMESPACES: Final = 50
APPLICATIONS: Final = 20  # in each namespace
SAMPLES: Final = 300


def pod(number: int, *, version: str = "v1", application: int | None = None) -> Pod:
    """The pod with this number; a fifth of them run on NODE."""
    space, own = number % NAMESPACES, (number // NAMESPACES) % APPLICATIONS
    labels = {
        "app": f"app-{own if application is None else application}",
        "version": version,
        "pod-template-hash": f"{number:x}",
    }
    return Pod(
        metadata=Metadata(name=f"pod-{number}", namespace=f"ns-{space}", uid=str(number), labels=labels),
        spec=PodSpec(
            node_name=f"node-{(number // (NAMESPACES * APPLICATIONS)) % NODES}",
            service_account_name="default",
            containers=[Container(name="main", ports=[ContainerPort(container_port=8080, name="http")])],
        ),
        status=PodStatus(
            phase="Running",
            pod_ips=[PodIP(ip=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")],
        ),
    )


def policy(number: int, port: int = 8080) -> KubernetesNetworkPolicy:
    """The policy with this number: for one application, it lets the next one in."""
    space, own = number % NAMESPACES, (number // NAMESPACES) % APPLICATIONS
    peer = KubernetesPeer(pod_selector=LabelSelector(match_labels={"app": f"app-{(own + 1) % APPLICATIONS}"}))
    rule = KubernetesNetworkPolicyIngressRule(peers=[peer], ports=[KubernetesPolicyPort(port=port)])
    return KubernetesNetworkPolicy(
        metadata=Metadata(name=f"policy-{number}", namespace=f"ns-{space}"),
        spec=KubernetesNetworkPolicySpec(
            pod_selector=LabelSelector(match_labels={"app": f"app-{own}"}), ingress=[rule]
        ),
    )


def everybody(number: int) -> GlobalNetworkPolicy:
    """A policy for all pods, in turn before and after the Kubernetes policies (their order is 1000): the list
    of policies changes for every endpoint."""
    return GlobalNetworkPolicy(
        metadata=Metadata(name="everybody"),
        spec=GlobalNetworkPolicySpec(order=500 if number % 2 else 1500, types=["Ingress"]),
    )


def cluster() -> list[Resource]:
    """All objects."""
    spaces = [
        Namespace(metadata=Metadata(name=f"ns-{number}", labels={"team": f"team-{number % 5}"}))
        for number in range(NAMESPACES)
    ]
    return [*spaces, *map(pod, range(PODS)), *map(policy, range(POLICIES))]


def filled(objects: list[Resource]) -> PolicyEngine:
    """An engine that knows everything and was flushed."""
    engine = PolicyEngine(NODE)
    for resource in objects:
        engine.update(resource)
    engine.flush()
    return engine


def _milliseconds(action: Callable[[], object]) -> float:
    """Of processor time: the core never waits for anything, and other programs' turns are not its cost."""
    start = time.process_time()
    action()
    return (time.process_time() - start) * 1000


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _changes(engine: PolicyEngine, objects: Callable[[int], Resource]) -> list[float]:
    """Milliseconds of SAMPLES changes, each with its flush; `objects` gives a different one for each."""
    times = []
    for number in range(SAMPLES):
        resource = objects(number)

        def change(resource: Resource = resource) -> None:
            engine.update(resource)
            if not engine.flush():
                raise AssertionError(f"the change of {resource.metadata.name} changed nothing")

        times.append(_milliseconds(change))
    return times


def measure() -> list[Measurement]:
    """Incremental against from scratch, in one run."""
    objects = cluster()
    # As the agent does when its start is over: the collector need not walk what stays for good.
    gc.collect()
    gc.freeze()
    start = statistics.median(_milliseconds(lambda: filled(objects)) for _ in range(3))
    scratch = statistics.median(_milliseconds(lambda: filled(objects).state()) for _ in range(3))
    naive = _milliseconds(lambda: snapshot(objects, NODE))
    engine = filled(objects)
    rules = _changes(engine, lambda number: policy(number, port=9000 + number))
    added = _changes(engine, lambda number: pod(PODS + number))
    wide = _changes(engine, everybody)
    labels = _changes(
        engine, lambda number: pod(number, application=(number // NAMESPACES + 7) % APPLICATIONS)
    )
    found = [
        Measurement(
            name="policy core: start with 1,000 endpoints of 5,000 and 1,000 policies",
            unit="ms",
            ours=start,
            limit=3000,
            samples=3,
            explanation=f"the same by asking every selector about everything: {naive:.0f} ms",
        )
    ]
    for name, times, limit in (
        ("one pod's labels", labels, 5.0),
        ("one policy's ports", rules, 5.0),
        ("one more pod", added, 5.0),
        ("the order of a policy that selects all pods", wide, 50.0),
    ):
        for label, value in (("median", statistics.median(times)), ("p99", _percentile(times, 0.99))):
            found.append(
                Measurement(
                    name=f"policy core: {name} ({label})",
                    unit="ms",
                    ours=value,
                    peer_name="from scratch",
                    peer=scratch,
                    limit=limit,
                    samples=SAMPLES,
                )
            )
    return found


def main() -> None:
    """Print the table."""
    for entry in measure():
        ratio = f", {entry.ratio:.0f} times faster than {entry.peer_name}" if entry.ratio else ""
        sys.stdout.write(f"{entry.name}: {entry.ours:.3f} {entry.unit}{ratio}\n")


if __name__ == "__main__":
    main()
