"""What the agent counts, in Prometheus' terms."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector


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
        self.problems = Gauge(
            "tortie_left_out", "Objects of the cluster that had to be left out", registry=self.registry
        )
        self.peers = Gauge("tortie_bgp_peers", "BGP sessions by state", ["state"], registry=self.registry)
        self.bird_reloads = Counter(
            "tortie_bird_reconfigurations", "Times BIRD took a new configuration", registry=self.registry
        )
