"""What may not stand in KubeControllersConfiguration. Call `validation.problems`."""

from typing import Final

from tortie.model import checks
from tortie.model.checks import Findings
from tortie.model.cluster import KubeControllersConfiguration, NodeController
from tortie.model.problems import Problem

_LOG_LEVELS: Final = ("None", *checks.LOG_LEVELS, "Panic")


def controllers_problems(configuration: KubeControllersConfiguration) -> Findings:
    """A KubeControllersConfiguration."""
    spec = configuration.spec
    yield from checks.named_default(configuration.metadata.name)
    yield from checks.one_of("spec.logSeverityScreen", spec.log_severity_screen, _LOG_LEVELS)
    yield from checks.one_of("spec.healthChecks", spec.health_checks, checks.SWITCH)
    yield from checks.duration("spec.etcdV3CompactionPeriod", spec.etcd_v3_compaction_period)
    yield from checks.port("spec.prometheusMetricsPort", spec.prometheus_metrics_port, least=0)
    yield from checks.port("spec.debugProfilePort", spec.debug_profile_port, least=0)
    controllers = spec.controllers
    for name, controller in (
        ("policy", controllers.policy),
        ("workloadEndpoint", controllers.workload_endpoint),
        ("serviceAccount", controllers.service_account),
        ("namespace", controllers.namespace),
    ):
        if controller is not None:
            period = controller.reconciler_period
            yield from checks.duration(f"spec.controllers.{name}.reconcilerPeriod", period)
    if controllers.node is not None:
        yield from _node_controller(controllers.node)
    if controllers.load_balancer is not None:
        yield from checks.one_of(
            "spec.controllers.loadBalancer.assignIPs",
            controllers.load_balancer.assign_ips,
            ("AllServices", "RequestedServicesOnly"),
        )
    if controllers.policy_migration is not None:
        mode = controllers.policy_migration.policy_name_migrator
        yield from checks.one_of("spec.controllers.policyMigration.enabled", mode, checks.SWITCH)


def _node_controller(controller: NodeController) -> Findings:
    path = "spec.controllers.node"
    yield from checks.duration(f"{path}.reconcilerPeriod", controller.reconciler_period)
    yield from checks.duration(f"{path}.leakGracePeriod", controller.leak_grace_period)
    yield from checks.one_of(f"{path}.syncLabels", controller.sync_labels, checks.SWITCH)
    host = controller.host_endpoint
    if host is None:
        return
    yield from checks.one_of(f"{path}.hostEndpoint.autoCreate", host.auto_create, checks.SWITCH)
    default = host.create_default_host_endpoint
    yield from checks.one_of(f"{path}.hostEndpoint.createDefaultHostEndpoint", default, checks.SWITCH)
    for index, template in enumerate(host.templates):
        place = f"{path}.hostEndpoint.templates[{index}]"
        if not template.interface_cidrs and not template.interface_pattern:
            yield Problem(f"{place}.interfaceCIDRs", "", "must be set, or interfacePattern")
        for number, cidr in enumerate(template.interface_cidrs):
            yield from checks.cidr(f"{place}.interfaceCIDRs[{number}]", cidr)
        yield from checks.regex(f"{place}.interfacePattern", template.interface_pattern)
        yield from checks.selector(f"{place}.nodeSelector", template.node_selector)
