"""A CNI request, parsed and checked: environment and network configuration (CNI SPEC 1.0.0, section 2)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final, Literal

import msgspec

from tortie.cni.errors import (
    BAD_CONFIG,
    BAD_ENVIRONMENT,
    DECODE_FAILURE,
    INCOMPATIBLE_VERSION,
    UNSUPPORTED_FIELD,
    CNIError,
)
from tortie.cni.shim import REQUIRED, VERSIONS

Command = Literal["ADD", "DEL", "CHECK"]
COMMANDS: Final[dict[str, Command]] = {"ADD": "ADD", "DEL": "DEL", "CHECK": "CHECK"}
PLUGIN: Final = "calico"
IPAM_PLUGIN: Final = "calico-ipam"
# SPEC section 2: container ids and network names. IFNAMSIZ (linux/if.h) is 16 with the final zero.
_CONTAINER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_NETWORK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_INTERFACE: Final = re.compile(r"[^\s/:]{1,15}")
_MTU_RANGE: Final = range(68, 65536)  # RFC 791: every link carries 68 bytes; a veth carries at most 65535


class IPAMConfig(msgspec.Struct, kw_only=True):
    """The `ipam` section."""

    type: str = IPAM_PLUGIN
    ipv4_pools: list[str] = []
    assign_ipv4: str | bool = "true"
    assign_ipv6: str | bool = "false"


class ContainerSettings(msgspec.Struct, kw_only=True):
    """Calico's container_settings."""

    allow_ip_forwarding: bool = False


class PreviousIP(msgspec.Struct, kw_only=True):
    """One of prevResult.ips."""

    address: str


class PreviousResult(msgspec.Struct, kw_only=True):
    """prevResult: what ADD answered."""

    ips: list[PreviousIP] = []


class NetworkConfig(msgspec.Struct, kw_only=True):
    """The network configuration, the fields that are read here."""

    cni_version: str = msgspec.field(name="cniVersion", default="")
    name: str = ""
    type: str = ""
    mtu: int = 0
    ipam: IPAMConfig = msgspec.field(default_factory=IPAMConfig)
    container_settings: ContainerSettings = msgspec.field(default_factory=ContainerSettings)
    prev_result: PreviousResult | None = msgspec.field(name="prevResult", default=None)


@dataclass(frozen=True, slots=True)
class PodReference:
    """The pod that a sandbox belongs to. `uid` is empty when the runtime does not tell it."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the plugin. `pod` is None for a container that Kubernetes did not start."""

    command: Command
    plugin: str
    container_id: str
    ifname: str
    netns: str
    config: NetworkConfig
    pod: PodReference | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def decode(payload: bytes) -> tuple[dict[str, str], bytes]:
    """Split what the shim sent into environment and configuration. Raise CNIError."""
    head, separator, config = payload.partition(b"\0\0")
    if not separator:
        raise CNIError(
            DECODE_FAILURE, "the CNI plugin and the agent do not speak the same protocol; reinstall it"
        )
    environment: dict[str, str] = {}
    for item in head.split(b"\0"):
        key, _, value = item.decode("utf-8", "surrogateescape").partition("=")
        environment[key] = value
    return environment, config


def parse(payload: bytes) -> Request:
    """The request in `payload`. Raise CNIError with the code that the SPEC gives to the fault."""
    environment, text = decode(payload)
    command = COMMANDS.get(environment.get("CNI_COMMAND", ""))
    if command is None:
        shown = environment.get("CNI_COMMAND") or "not set"
        raise CNIError(BAD_ENVIRONMENT, f"CNI_COMMAND is {shown}; it must be one of {', '.join(COMMANDS)}")
    missing = [name for name in REQUIRED[command] if not environment.get(name)]
    if missing:
        raise CNIError(
            BAD_ENVIRONMENT, f"{command} needs {' and '.join(missing)}: not set in the environment"
        )
    container_id, ifname = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    if not _CONTAINER_ID.fullmatch(container_id):
        raise CNIError(
            BAD_ENVIRONMENT,
            f"CNI_CONTAINERID is {container_id!r}; it must be letters, digits and _ . - only",
        )
    if not _INTERFACE.fullmatch(ifname) or ifname in (".", ".."):
        raise CNIError(
            BAD_ENVIRONMENT,
            f"CNI_IFNAME is {ifname!r}; it must be 1 to 15 characters without blank, colon and slash",
        )
    config = _config(text)
    plugin = environment.get("CNI_TYPE", PLUGIN)
    _check_config(config, plugin, command)
    pod = _pod(environment.get("CNI_ARGS", ""))
    netns = environment.get("CNI_NETNS", "")
    return Request(command, plugin, container_id, ifname, netns, config, pod, environment)


def _config(text: bytes) -> NetworkConfig:
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CNIError(
            DECODE_FAILURE, f"the network configuration on standard input is not JSON: {error}"
        ) from error
    try:
        return msgspec.convert(raw, NetworkConfig)
    except msgspec.ValidationError as error:
        raise CNIError(BAD_CONFIG, f"the network configuration is not valid: {error}") from error


def _check_config(config: NetworkConfig, plugin: str, command: Command) -> None:
    """Raise CNIError for what is missing, of a wrong value, or not supported here."""
    fields = (("cniVersion", config.cni_version), ("name", config.name), ("type", config.type))
    missing = [name for name, value in fields if not value]
    if missing:
        raise CNIError(BAD_CONFIG, f"the network configuration lacks {' and '.join(missing)}; add it")
    if config.cni_version not in VERSIONS:
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f"cniVersion is {config.cni_version}; this plugin speaks {', '.join(VERSIONS)}: set one of these",
        )
    if command == "CHECK" and config.cni_version == "0.3.1":
        raise CNIError(INCOMPATIBLE_VERSION, "cniVersion is 0.3.1, which has no CHECK; set 0.4.0 or later")
    if not _NETWORK.fullmatch(config.name):
        raise CNIError(BAD_CONFIG, f"name is {config.name!r}; it must be letters, digits and _ . - only")
    if plugin not in (PLUGIN, IPAM_PLUGIN):
        raise CNIError(BAD_ENVIRONMENT, f"the plugin was called {plugin!r}; it is {PLUGIN} or {IPAM_PLUGIN}")
    if config.mtu and config.mtu not in _MTU_RANGE:
        raise CNIError(BAD_CONFIG, f"mtu is {config.mtu}; it must be 0 (automatic) or 68 to 65535 bytes")
    if config.ipam.type != IPAM_PLUGIN:
        raise CNIError(
            UNSUPPORTED_FIELD, f"ipam.type is {config.ipam.type!r}; this network supports {IPAM_PLUGIN} only"
        )
    if str(config.ipam.assign_ipv6).lower() == "true" or str(config.ipam.assign_ipv4).lower() != "true":
        raise CNIError(
            UNSUPPORTED_FIELD,
            "ipam.assign_ipv4 must be true and ipam.assign_ipv6 false: this network is IPv4",
        )


def _pod(arguments: str) -> PodReference | None:
    """The pod that CNI_ARGS (`K8S_POD_NAME=a;K8S_POD_NAMESPACE=b;...`) names, if it does."""
    values: dict[str, str] = {}
    for item in filter(None, arguments.split(";")):
        key, separator, value = item.partition("=")
        if not separator:
            raise CNIError(BAD_ENVIRONMENT, f"CNI_ARGS holds {item!r}; each item must be KEY=VALUE")
        values[key] = value
    name, namespace = values.get("K8S_POD_NAME", ""), values.get("K8S_POD_NAMESPACE", "")
    if not name and not namespace:
        return None
    if not name or not namespace:
        raise CNIError(
            BAD_ENVIRONMENT,
            f"CNI_ARGS is {arguments!r}; K8S_POD_NAME and K8S_POD_NAMESPACE must be given together",
        )
    return PodReference(namespace, name, values.get("K8S_POD_UID", ""))


def previous_address(request: Request) -> IPv4Address:
    """The address that ADD answered, from prevResult. Raise CNIError when it is not there."""
    previous = request.config.prev_result
    for item in previous.ips if previous else []:
        try:
            return IPv4Interface(item.address).ip
        except ValueError as error:
            raise CNIError(BAD_CONFIG, f"prevResult.ips holds {item.address!r}: {error}") from error
    raise CNIError(BAD_CONFIG, "CHECK needs prevResult with the address that ADD answered")


def result(request: Request, address: IPv4Address, interfaces: list[dict[str, Any]]) -> bytes:
    """The answer to ADD as JSON, in the shape of the configuration's cniVersion (SPEC section 5).

    `interfaces` is empty for an address plugin; else its second item is the container's.
    """
    version = request.config.cni_version
    ip: dict[str, Any] = {"address": f"{address}/32"}
    if version != "1.0.0":
        ip["version"] = "4"
    if interfaces:
        ip["interface"] = 1
    answer: dict[str, Any] = {"cniVersion": version, "ips": [ip], "dns": {}}
    if interfaces:
        answer["interfaces"] = interfaces
    return msgspec.json.encode(answer) + b"\n"
