"""A CNI request, parsed and checked: environment and network configuration (CNI SPEC 1.1.0, section 2)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from tortie.cni import netconf
from tortie.cni.errors import BAD_CONFIG, BAD_ENVIRONMENT, DECODE_FAILURE, CNIError
from tortie.cni.netconf import PLUGIN, NetworkConfig
from tortie.cni.shim import REQUIRED
from tortie.model import names

Command = Literal["ADD", "DEL", "CHECK", "STATUS", "GC"]
COMMANDS: Final[dict[str, Command]] = {
    "ADD": "ADD",
    "DEL": "DEL",
    "CHECK": "CHECK",
    "STATUS": "STATUS",
    "GC": "GC",
}
# SPEC section 2: container ids. IFNAMSIZ (linux/if.h) is 16 with the final zero.
_CONTAINER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_INTERFACE: Final = re.compile(r"[^\s/:]{1,15}")
_MAX_CONTAINER_ID: Final = 128  # with interface and network the alias of a device: 255 bytes (IFALIASZ)


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
    """One call of the plugin. `pod` is None for a container that Kubernetes did not start.

    `raw` is the configuration as it came, `arguments` the items of CNI_ARGS. STATUS and GC name no container.
    """

    command: Command
    plugin: str
    container_id: str
    ifname: str
    netns: str
    config: NetworkConfig
    pod: PodReference | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def handle(self) -> str:
        """What the container's addresses are accounted to."""
        return names.handle_id(self.config.name, self.container_id)

    @property
    def host_name(self) -> str:
        """The host's end of the interface."""
        if self.pod is None:
            return names.veth_name_for_container(self.container_id)
        return names.veth_name(self.pod.namespace, self.pod.name)

    @property
    def makes_interface(self) -> bool:
        """Whether the plugin was called for an interface, and not for an address only."""
        return self.plugin == PLUGIN

    def __str__(self) -> str:
        if self.pod is not None:
            return f"pod {self.pod}"
        return f"container {self.container_id}" if self.container_id else f"network {self.config.name}"


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
        given = environment.get("CNI_COMMAND")
        shown = ascii(given) if given else "not set"
        raise CNIError(BAD_ENVIRONMENT, f"CNI_COMMAND is {shown}; it must be one of {', '.join(COMMANDS)}")
    missing = [name for name in REQUIRED[command] if not environment.get(name)]
    if missing:
        raise CNIError(
            BAD_ENVIRONMENT, f"{command} needs {' and '.join(missing)}: not set in the environment"
        )
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if "CNI_CONTAINERID" in REQUIRED[command]:
        _check_names(container_id, ifname)
    config, raw = _config(text)
    plugin = environment.get("CNI_TYPE", PLUGIN)
    netconf.check(config, raw, plugin, command)
    arguments = _arguments(environment.get("CNI_ARGS", ""))
    return Request(
        command=command,
        plugin=plugin,
        container_id=container_id,
        ifname=ifname,
        netns=environment.get("CNI_NETNS", ""),
        config=config,
        pod=_pod(arguments),
        raw=raw,
        arguments=arguments,
        environment=environment,
    )


def _check_names(container_id: str, ifname: str) -> None:
    if not _CONTAINER_ID.fullmatch(container_id) or len(container_id) > _MAX_CONTAINER_ID:
        raise CNIError(
            BAD_ENVIRONMENT,
            f"CNI_CONTAINERID is {container_id!a}; it must be letters, digits and _ . - only, "
            f"at most {_MAX_CONTAINER_ID}",
        )
    if not _INTERFACE.fullmatch(ifname) or ifname in (".", "..") or not ifname.isprintable():
        raise CNIError(
            BAD_ENVIRONMENT,
            f"CNI_IFNAME is {ifname!a}; it must be 1 to 15 characters without blank, colon and slash",
        )


def _config(text: bytes) -> tuple[NetworkConfig, dict[str, Any]]:
    try:
        raw = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CNIError(
            DECODE_FAILURE, f"the network configuration on standard input is not JSON: {error}"
        ) from error
    if not isinstance(raw, dict):
        raise CNIError(BAD_CONFIG, f"the network configuration is a JSON {type(raw).__name__}, not an object")
    try:
        # What Go leaves empty it may write as null.
        present = {key: value for key, value in raw.items() if value is not None}
        return msgspec.convert(present, NetworkConfig), present
    except msgspec.ValidationError as error:
        raise CNIError(BAD_CONFIG, f"the network configuration is not valid: {error}") from error


def _arguments(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for item in filter(None, text.split(";")):
        key, separator, value = item.partition("=")
        if not separator:
            raise CNIError(BAD_ENVIRONMENT, f"CNI_ARGS holds {item!a}; each item must be KEY=VALUE")
        values[key] = value
    return values


def _pod(arguments: Mapping[str, str]) -> PodReference | None:
    """The pod that CNI_ARGS (`K8S_POD_NAME=a;K8S_POD_NAMESPACE=b;...`) names, if it does."""
    name, namespace = arguments.get("K8S_POD_NAME", ""), arguments.get("K8S_POD_NAMESPACE", "")
    if not name and not namespace:
        return None
    if not name or not namespace:
        raise CNIError(
            BAD_ENVIRONMENT,
            f"CNI_ARGS has K8S_POD_NAME {name!a} and K8S_POD_NAMESPACE {namespace!a}; "
            "they must be given together",
        )
    for key, value in (("K8S_POD_NAME", name), ("K8S_POD_NAMESPACE", namespace)):
        if not _CONTAINER_ID.fullmatch(value):  # the characters of an object's name, and more
            raise CNIError(BAD_ENVIRONMENT, f"CNI_ARGS has {key} {value!a}, which is no object's name")
    return PodReference(namespace, name, arguments.get("K8S_POD_UID", ""))
