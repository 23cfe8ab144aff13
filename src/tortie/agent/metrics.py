"""What the agent counts, in Prometheus' terms."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

# Seconds: a change shall be in force within 20 ms.
_POLICY_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Metrics:
    """All metrics of one agent, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.ready = Gauge("tortie_ready", "1 when every layer of the node is ready", registry=self.registry)
        self.apply_seconds = Histogram(
            "tortie_dataplane_apply_seconds",
            "Time to bring the kernel to the desired state",
            registry=self.registry,
        )
        self.apply_errors = Counter(
            "tortie_dataplane_apply_errors",
            "Attempts that the kernel refused in part",
            registry=self.registry,
        )
        self.changes = Counter(
            "tortie_dataplane_changes", "Changes made to the kernel's state", registry=self.registry
        )
        self.routes = Gauge("tortie_routes", "Routes the agent keeps in the kernel", registry=self.registry)
        self.blocks = Gauge("tortie_ipam_blocks", "Blocks that this node holds", registry=self.registry)
        self.policy_apply_seconds = Histogram(
            "tortie_policy_apply_seconds",
            "Time to compute a change of policy and put it into the kernel",
            buckets=_POLICY_BUCKETS,
            registry=self.registry,
        )
        self.policy_change_seconds = Histogram(
            "tortie_policy_change_seconds",
            "Time from the watch event or ADD to the policy in force",
            buckets=_POLICY_BUCKETS,
            registry=self.registry,
        )
        self.policy_errors = Counter(
            "tortie_policy_errors",
            "Changes of policy that could not be computed or that the kernel refused",
            registry=self.registry,
        )
        self.policy_repairs = Counter(
            "tortie_policy_repairs",
            "Differences in the kernel's policy that somebody else made",
            registry=self.registry,
        )
        self.policy_cuts = Counter(
            "tortie_policy_connections_ended",
            "Established connections ended because policy came to deny them",
            registry=self.registry,
        )
        self.policy_problems = Gauge(
            "tortie_policy_problems",
            "Policies and host endpoints that are not in force as they are written",
            registry=self.registry,
        )
        self.policy_staged = Gauge(
            "tortie_policy_staged",
            "Staged policies that select somebody on this node; they are not enforced",
            registry=self.registry,
        )
        self.borrowed = Gauge(
            "tortie_ipam_borrowed", "Addresses that nodes hold in blocks of others", registry=self.registry
        )
        self.problems = Gauge(
            "tortie_left_out", "Objects of the cluster that had to be left out", registry=self.registry
        )
        self.peers = Gauge("tortie_bgp_peers", "BGP sessions by state", ["state"], registry=self.registry)
        self.bird_reloads = Counter(
            "tortie_bird_reconfigurations", "Times BIRD took a new configuration", registry=self.registry
        )
