"""Cluster-wide settings of crd.projectcalico.org/v1 that are neither addresses nor BGP."""

from msgspec import Struct, field

from tortie.model.base import CRD_GROUP_VERSION, Resource, ResourceType


class ClusterInformationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`datastore_ready` false makes CNI refuse with a retryable error."""

    cluster_guid: str = field(default="", name="clusterGUID")
    cluster_type: str = ""
    calico_version: str = ""
    datastore_ready: bool | None = None
    variant: str = ""


class ClusterInformation(Resource, kw_only=True):
    """The single object is named `default`."""

    resource_type = ResourceType(CRD_GROUP_VERSION, "ClusterInformation", "clusterinformations")
    spec: ClusterInformationSpec


class HostEndpointTemplate(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """How to make a host endpoint per matching interface of each selected node."""

    generate_name: str = ""
    interface_cidrs: list[str] = field(default_factory=list, name="interfaceCIDRs")
    interface_pattern: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    node_selector: str = ""


class AutoHostEndpoint(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`auto_create` and `create_default_host_endpoint` are Enabled or Disabled."""

    auto_create: str = ""
    create_default_host_endpoint: str = ""
    templates: list[HostEndpointTemplate] = field(default_factory=list)


class NodeController(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Durations as Go writes them; a leak grace period of 0 switches garbage collection off."""

    reconciler_period: str = ""
    sync_labels: str = ""
    host_endpoint: AutoHostEndpoint | None = None
    leak_grace_period: str = ""


class Reconciler(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A controller with nothing but its period."""

    reconciler_period: str = ""


class LoadBalancerController(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`assign_ips` is AllServices or RequestedServicesOnly."""

    assign_ips: str = field(default="", name="assignIPs")


class MigrationController(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Enabled or Disabled."""

    policy_name_migrator: str = field(default="", name="enabled")


class Controllers(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A controller that is left out is off."""

    node: NodeController | None = None
    policy: Reconciler | None = None
    workload_endpoint: Reconciler | None = None
    service_account: Reconciler | None = None
    namespace: Reconciler | None = None
    load_balancer: LoadBalancerController | None = None
    policy_migration: MigrationController | None = None


class KubeControllersConfigurationSpec(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Settings of calico-kube-controllers; the object named `default` counts. Environment variables win."""

    log_severity_screen: str = ""
    health_checks: str = ""
    etcd_v3_compaction_period: str = field(default="", name="etcdV3CompactionPeriod")
    prometheus_metrics_port: int | None = None
    debug_profile_port: int | None = None
    controllers: Controllers = field(default_factory=Controllers)


class KubeControllersConfigurationStatus(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What the controllers run with, and which environment variables made it so."""

    running_config: KubeControllersConfigurationSpec | None = None
    environment_vars: dict[str, str] = field(default_factory=dict)


class KubeControllersConfiguration(Resource, kw_only=True):
    """Calico KubeControllersConfiguration."""

    resource_type = ResourceType(
        CRD_GROUP_VERSION, "KubeControllersConfiguration", "kubecontrollersconfigurations"
    )
    spec: KubeControllersConfigurationSpec
    status: KubeControllersConfigurationStatus | None = None
