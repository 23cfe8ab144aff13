"""All facts in, the verdict out: pure, so that each kind of failure is tested without a cluster."""

from __future__ import annotations

from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import (
    FAILED,
    LAYERS,
    Check,
    Subject,
    make_view,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_checks_node import (
    check_address,
    check_block,
    check_masquerade,
    check_nodes,
    check_pool,
    check_tunnel,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_checks_path import (
    check_bgp,
    check_neighbour,
    check_route,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_checks_pod import (
    check_dns,
    check_mtu,
    check_pod,
    check_service,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    ClusterFacts,
    Expectations,
    NodeFacts,
    ProbeFacts,
)

JUDGES = (
    check_nodes,
    check_pool,
    check_address,
    check_tunnel,
    check_block,
    check_bgp,
    check_route,
    check_neighbour,
    check_pod,
    check_mtu,
    check_service,
    check_dns,
    check_masquerade,
)

# Layers that need the probe pods.
PROBED_LAYERS = ("pod", "mtu", "service", "dns")

NO_CLUSTER = "the API server named no node"
NAMED_SUBJECTS = 4  # a sentence that names more is not read


def judge(
    expect: Expectations, cluster: ClusterFacts, facts: dict[str, NodeFacts], probes: dict[str, ProbeFacts]
) -> list[Check]:
    """Every check of every layer, in the order of LAYERS. `facts` and `probes` are keyed by inventory name.

    A fact that is missing is never taken for granted: its absence fails in the first layer that needs it, and
    the checks that build on it say that they were not made, and why.
    """
    view = make_view(expect, cluster, facts, probes)
    if not cluster["nodes"]:
        unread = [Subject(layer).skip("everything", NO_CLUSTER) for layer in LAYERS if layer != "nodes"]
        return check_nodes(view) + unread
    checks = [check for judge_layer in JUDGES for check in judge_layer(view)]
    if cluster["unprobed"]:
        checks = [check for check in checks if check.layer not in PROBED_LAYERS]
        checks += [Subject(layer).skip("probes", cluster["unprobed"]) for layer in PROBED_LAYERS]
    return sorted(checks, key=lambda check: LAYERS.index(check.layer))


def failures(checks: list[Check]) -> list[Check]:
    """The checks that failed."""
    return [check for check in checks if check.status == FAILED]


def verdict(checks: list[Check]) -> str:
    """One sentence: everything holds, or the first failing layer, where, and what to look at."""
    failed = failures(checks)
    if not failed:
        made = sum(check.ok for check in checks)
        return f"All {made} checks hold; {len(checks) - made} were not made (reasons in the report)."
    layer = failed[0].layer
    of_layer = [check for check in failed if check.layer == layer]
    subjects = list(dict.fromkeys(check.subject for check in of_layer))
    more = f" and {len(subjects) - NAMED_SUBJECTS} more" if len(subjects) > NAMED_SUBJECTS else ""
    first = of_layer[0]
    return (
        f"First failing layer: {layer}, on {', '.join(subjects[:NAMED_SUBJECTS])}{more}. "
        f"{first.subject}, {first.what}: expected {first.expected}, found {first.found}. "
        f"Look at: {first.hint}"
    )
