"""The network configuration: what is read of it, and a stated refusal of what this network cannot do.

Names are Calico's. A field that neither stands here nor in REFUSED is ignored, as the CNI SPEC (section 1)
wants it. Ignored on purpose, because the agent that serves the request knows better: `log_*`, `qps`, `burst`,
`kubernetes`, `policy`'s credentials, `nodename_file*`, `require_mtu_file` (the agent writes both files before
it serves), `ipam_lock_file`, `endpoint_status_dir` (the answer itself says that policy is in force).
"""

import re
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any, Final

import msgspec

from tortie.cni.errors import BAD_CONFIG, BAD_ENVIRONMENT, INCOMPATIBLE_VERSION, UNSUPPORTED_FIELD, CNIError
from tortie.cni.shim import VERSIONS
from tortie.model.base import CALICO_GROUP_VERSION, CRD_GROUP_VERSION

PLUGIN: Final = "calico"
IPAM_PLUGIN: Final = "calico-ipam"
NEWEST_WITHOUT_CHECK: Final = "0.3.1"
NEWEST_WITHOUT_GC: Final = "1.0.0"  # nor STATUS
_NETWORK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")  # SPEC section 1
_MTU_RANGE: Final = range(68, 65536)  # RFC 791: every link carries 68 bytes; a veth carries at most 65535
_MAX_QUEUES: Final = 4096  # drivers/net/veth.c
_TRUE, _FALSE = frozenset({"true", "1", "t", "yes"}), frozenset({"false", "0", "f", "no", ""})

_NO_ETCD: Final = "the agent works on the datastore of Kubernetes"
# Fields that mean something to Calico and nothing here: a value is refused, with the reason.
REFUSED: Final[dict[str, str]] = {
    "mode": "it is for Windows nodes",
    "vxlan_mac_prefix": "it is for Windows nodes",
    "vxlan_vni": "it is for Windows nodes",
    "windows_use_single_network": "it is for Windows nodes",
    "windows_disable_host_subnet_nat_exclusion": "it is for Windows nodes",
    "windows_loopback_DSR": "it is for Windows nodes",
    "windows_disable_default_deny_all_pods": "it is for Windows nodes",
    "etcd_endpoints": _NO_ETCD,
    "etcd_discovery_srv": _NO_ETCD,
    "etcd_authority": _NO_ETCD,
    "etcd_scheme": _NO_ETCD,
    "etcd_key_file": _NO_ETCD,
    "etcd_cert_file": _NO_ETCD,
    "etcd_ca_cert_file": _NO_ETCD,
}


class IPAMConfig(msgspec.Struct, kw_only=True):
    """The `ipam` section. Of another type than calico-ipam, the whole configuration goes to that plugin."""

    type: str = IPAM_PLUGIN
    ipv4_pools: list[str] = []
    ipv6_pools: list[str] = []
    assign_ipv4: str | bool = "true"
    assign_ipv6: str | bool = "false"


class ContainerSettings(msgspec.Struct, kw_only=True):
    """Calico's container_settings."""

    allow_ip_forwarding: bool = False


class FeatureControl(msgspec.Struct, kw_only=True):
    """Calico's feature_control: what pods may ask for by annotation."""

    ip_addrs_no_ipam: bool = False
    floating_ips: bool = False


class PolicyConfig(msgspec.Struct, kw_only=True):
    """The `policy` section."""

    type: str = ""


class RuntimeConfig(msgspec.Struct, kw_only=True):
    """Capability arguments (CNI conventions): what the runtime fills in."""

    ips: list[str] = []
    mac: str = ""


class PreviousIP(msgspec.Struct, kw_only=True):
    """One of prevResult.ips."""

    address: str
    interface: int | None = None


class PreviousInterface(msgspec.Struct, kw_only=True):
    """One of prevResult.interfaces; `sandbox` is empty for one on the node."""

    name: str = ""
    mac: str = ""
    sandbox: str = ""


class PreviousResult(msgspec.Struct, kw_only=True):
    """prevResult: what ADD answered, with what later plugins of the chain added."""

    ips: list[PreviousIP] = []
    interfaces: list[PreviousInterface] = []


class Attachment(msgspec.Struct, kw_only=True):
    """One of cni.dev/valid-attachments."""

    container_id: str = msgspec.field(name="containerID", default="")
    ifname: str = ""


class NetworkConfig(msgspec.Struct, kw_only=True):
    """The network configuration, the fields that are read here."""

    cni_version: str = msgspec.field(name="cniVersion", default="")
    name: str = ""
    type: str = ""
    mtu: int = 0
    num_queues: int = 0
    nodename: str = ""
    hostname: str = ""
    datastore_type: str = ""
    device_type: str = ""
    calico_api_group: str = ""
    include_default_routes: bool = False
    policy_setup_timeout_seconds: float = 0
    readiness_gates: list[str] = []
    dataplane_options: dict[str, Any] = {}
    args: dict[str, Any] = {}
    dns: dict[str, Any] = {}
    ipam: IPAMConfig = msgspec.field(default_factory=IPAMConfig)
    container_settings: ContainerSettings = msgspec.field(default_factory=ContainerSettings)
    feature_control: FeatureControl = msgspec.field(default_factory=FeatureControl)
    policy: PolicyConfig = msgspec.field(default_factory=PolicyConfig)
    runtime_config: RuntimeConfig = msgspec.field(name="runtimeConfig", default_factory=RuntimeConfig)
    prev_result: PreviousResult | None = msgspec.field(name="prevResult", default=None)
    valid_attachments: list[Attachment] | None = msgspec.field(name="cni.dev/valid-attachments", default=None)

    @property
    def delegates(self) -> bool:
        """Whether another plugin gives out the addresses."""
        return self.ipam.type != IPAM_PLUGIN

    @property
    def families(self) -> frozenset[int]:
        """4, 6 or both, as the `ipam` section says."""
        wanted = {4: self.ipam.assign_ipv4, 6: self.ipam.assign_ipv6}
        return frozenset(family for family, value in wanted.items() if is_true(value))


def is_true(value: str | bool) -> bool:
    """A boolean that Calico writes as a string."""
    return str(value).lower() in _TRUE


def check(config: NetworkConfig, raw: dict[str, Any], plugin: str, command: str) -> None:
    """Raise CNIError for what is missing, of a wrong value, or not supported here."""
    fields = (("cniVersion", config.cni_version), ("name", config.name), ("type", config.type))
    missing = [name for name, value in fields if not value]
    if missing:
        raise CNIError(BAD_CONFIG, f"the network configuration lacks {' and '.join(missing)}; add it")
    _check_version(config.cni_version, command)
    if not _NETWORK.fullmatch(config.name):
        raise CNIError(BAD_CONFIG, f"name is {config.name!r}; it must be letters, digits and _ . - only")
    if plugin not in (PLUGIN, IPAM_PLUGIN):
        raise CNIError(BAD_ENVIRONMENT, f"the plugin was called {plugin!r}; it is {PLUGIN} or {IPAM_PLUGIN}")
    _check_values(config)
    if command != "DEL":  # what was made under an older configuration must be removable
        _check_supported(config, raw)
    if command == "GC" and config.valid_attachments is None:
        raise CNIError(BAD_CONFIG, "GC needs cni.dev/valid-attachments: the list of what is still in use")


def _check_version(version: str, command: str) -> None:
    if version not in VERSIONS:
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f"cniVersion is {version}; this plugin speaks {', '.join(VERSIONS)}: set one of these",
        )
    if command == "CHECK" and version == NEWEST_WITHOUT_CHECK:
        raise CNIError(
            INCOMPATIBLE_VERSION, f"cniVersion is {version}, which has no CHECK; set 0.4.0 or later"
        )
    if command in ("GC", "STATUS") and version in VERSIONS[: VERSIONS.index(NEWEST_WITHOUT_GC) + 1]:
        raise CNIError(INCOMPATIBLE_VERSION, f"cniVersion is {version}, which has no {command}; set 1.1.0")


def _check_values(config: NetworkConfig) -> None:
    if config.mtu and config.mtu not in _MTU_RANGE:
        raise CNIError(BAD_CONFIG, f"mtu is {config.mtu}; it must be 0 (automatic) or 68 to 65535 bytes")
    if not 0 <= config.num_queues <= _MAX_QUEUES:
        raise CNIError(BAD_CONFIG, f"num_queues is {config.num_queues}; it must be 0 to {_MAX_QUEUES}")
    if not 0 <= config.policy_setup_timeout_seconds <= 3600:
        raise CNIError(
            BAD_CONFIG,
            f"policy_setup_timeout_seconds is {config.policy_setup_timeout_seconds}; it must be 0 to 3600",
        )
    for key, value in (("assign_ipv4", config.ipam.assign_ipv4), ("assign_ipv6", config.ipam.assign_ipv6)):
        if str(value).lower() not in _TRUE | _FALSE:
            raise CNIError(BAD_CONFIG, f'ipam.{key} is {value!r}; it must be "true" or "false"')
    if not config.delegates and not config.families:
        raise CNIError(BAD_CONFIG, "ipam.assign_ipv4 and ipam.assign_ipv6 are both false; one must be true")
    for gate in config.readiness_gates:
        if not gate.startswith(("http://", "https://")):
            raise CNIError(BAD_CONFIG, f"readiness_gates holds {gate!r}; each must be an http or https URL")


def _check_supported(config: NetworkConfig, raw: dict[str, Any]) -> None:
    """SPEC section 5: the message of code 2 names the key and the value."""
    for key, reason in REFUSED.items():
        if raw.get(key):
            raise CNIError(
                UNSUPPORTED_FIELD, f"{key} is {raw[key]!r}, which is not supported: {reason}; remove it"
            )
    if "org.apache.mesos" in config.args:
        raise CNIError(
            UNSUPPORTED_FIELD,
            f"args holds org.apache.mesos ({config.args['org.apache.mesos']!r}): Mesos is not supported",
        )
    choices = (
        ("device_type", config.device_type, ("", "veth"), ("netkit",)),
        ("dataplane_options.type", str(config.dataplane_options.get("type", "")), ("", "linux"), ("grpc",)),
        ("datastore_type", config.datastore_type, ("", "kubernetes"), ("etcdv3",)),
        ("policy.type", config.policy.type, ("", "k8s"), ()),
        (
            "calico_api_group",
            config.calico_api_group,
            ("", CRD_GROUP_VERSION),
            (CALICO_GROUP_VERSION,),
        ),
    )
    for key, value, allowed, elsewhere in choices:
        if value not in allowed:
            shown = " or ".join(filter(None, allowed))
            code = UNSUPPORTED_FIELD if value in elsewhere else BAD_CONFIG
            raise CNIError(
                code, f"{key} is {value!r}, which is not supported; it must be {shown}, or be left out"
            )


def interface_of(text: str, where: str) -> IPv4Interface | IPv6Interface:
    """An address with or without prefix length. Raise CNIError, which says `where` it stands."""
    try:
        return ip_interface(text)
    except ValueError as error:
        raise CNIError(BAD_CONFIG, f"{where} holds {text!r}, which is not an address: {error}") from error
