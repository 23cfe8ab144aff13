"""The environment of calico-node as one typed value. Names and values are Calico's (docs/agent.md)."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final, Literal, TypeVar

from msgspec import Struct

from tortie.agent.autodetect import Method, parse_method
from tortie.agent.policy_settings import EndpointToHost
from tortie.datastore.choice import reasons_against
from tortie.model.constants import (
    DEFAULT_BLOCK_SIZE,
    DEFAULT_POOL_CIDR,
    HEALTH_PORT,
    METRICS_PORT,
)
from tortie.model.nodeinfo import parse_as_number
from tortie.model.resources import EncapsulationMode

T = TypeVar("T")
Backend = Literal["bird", "vxlan", "none"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

_MODES: Final[dict[str, EncapsulationMode]] = {
    "off": "Never",
    "never": "Never",
    "always": "Always",
    "crosssubnet": "CrossSubnet",
    "cross-subnet": "CrossSubnet",
}
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "1", "yes", "y", "t"), True),
    **dict.fromkeys(("false", "0", "no", "n", "f"), False),
}
_BACKENDS: Final[dict[str, Backend]] = {"bird": "bird", "vxlan": "vxlan", "none": "none"}
_ENDPOINT_TO_HOST: Final[dict[str, EndpointToHost | None]] = {
    "accept": "Accept",
    "return": "Return",
    "drop": "Drop",
}
_LEVELS: Final[dict[str, LogLevel]] = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "fatal": "ERROR",
}
# Calico's limits for IPv4 blocks.
_SMALLEST_BLOCK: Final = 32
_LARGEST_BLOCK: Final = 20


class SettingsError(Exception):
    """One or more variables have unusable values; the message has one sentence for each."""


class DefaultPool(Struct, frozen=True, kw_only=True):
    """The pool to create when the cluster has none."""

    cidr: IPv4Network
    block_size: int = DEFAULT_BLOCK_SIZE
    ipip: EncapsulationMode = "Never"
    vxlan: EncapsulationMode = "Never"
    nat_outgoing: bool = True
    node_selector: str = "all()"
    disable_bgp_export: bool = False


class Paths(Struct, frozen=True, kw_only=True):
    """Where files stand, as this process sees them."""

    run: Path = Path("/var/run/calico")
    lib: Path = Path("/var/lib/calico")
    etc: Path = Path("/etc/calico")

    @property
    def nodename_file(self) -> Path:
        """The node's name, for the CNI plugin."""
        return self.lib / "nodename"

    @property
    def mtu_file(self) -> Path:
        """The MTU of pods in bytes, for the CNI plugin."""
        return self.lib / "mtu"

    @property
    def cni_journal(self) -> Path:
        """DELs that came while the agent was away."""
        return self.lib / "cni-journal"

    @property
    def cni_socket(self) -> Path:
        """Where the CNI shim calls."""
        return self.run / "cni.sock"

    @property
    def bird_socket(self) -> Path:
        """BIRD's control socket."""
        return self.run / "bird.ctl"

    @property
    def bird_config(self) -> Path:
        """BIRD's configuration."""
        return self.etc / "bird.cfg"

    @property
    def bird_marker(self) -> Path:
        """Exists once BIRD was started since the machine booted: /var/run goes with the kernel's routes."""
        return self.run / "bird.started"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that the environment decides."""

    node_name: str = ""  # empty: nodename file, then host name
    backend: Backend = "bird"
    cluster_type: str = "k8s,bgp"
    ip: IPv4Interface | None = None  # None: autodetect; /32 when no length was given
    detection: Method = Method("first-found")
    as_number: int | None = None
    pool: DefaultPool | None = None
    service_host: str = ""  # KUBERNETES_SERVICE_HOST
    mtu: int = 0  # bytes; 0 is automatic
    resync: int = 90  # seconds between checks of the kernel
    endpoint_to_host: EndpointToHost | None = None  # None: as FelixConfiguration says
    health_port: int = HEALTH_PORT
    metrics_enabled: bool = False
    metrics_host: str = ""  # empty: every address of the host
    metrics_port: int = METRICS_PORT
    log_level: LogLevel = "INFO"
    bird_program: str = "bird"
    paths: Paths = Paths()


class _Reader:
    """Reads variables and gathers what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.errors: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """The value without surrounding blanks; an empty one counts as unset."""
        return self._environment.get(name, "").strip() or default

    def parse(self, name: str, default: T, parse: Callable[[str], T], allowed: str) -> T:
        """The parsed value. `allowed` completes the sentence "it must be ..."."""
        value = self.text(name)
        if not value:
            return default
        try:
            return parse(value)
        except (ValueError, KeyError) as error:
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            self.errors.append(f"{name} is {value!r}{reason}; it must be {allowed}.")
            return default

    def choice(self, name: str, default: T, values: Mapping[str, T]) -> T:
        """One of `values`, upper and lower case alike."""
        return self.parse(name, default, lambda value: values[value.lower()], "one of " + ", ".join(values))

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """A decimal number within limits."""

        def parse(value: str) -> int:
            number = int(value)
            if not lowest <= number <= highest:
                raise ValueError("out of range")
            return number

        return self.parse(name, default, parse, f"a number from {lowest} to {highest}")

    def path(self, name: str, default: Path) -> Path:
        """A path of the file system."""
        return Path(self.text(name)) if self.text(name) else default


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read all variables. Raise SettingsError that names every variable with an unusable value."""
    read = _Reader(environment)
    defaults = Settings()
    settings = Settings(
        node_name=read.text("NODENAME"),
        backend=read.choice("CALICO_NETWORKING_BACKEND", defaults.backend, _BACKENDS),
        cluster_type=read.text("CLUSTER_TYPE", defaults.cluster_type),
        ip=read.parse("IP", None, _parse_ip, "`autodetect` or an IPv4 address, with or without /length"),
        detection=read.parse(
            "IP_AUTODETECTION_METHOD",
            defaults.detection,
            parse_method,
            "first-found, kubernetes-internal-ip, interface=<regex>,.., skip-interface=<regex>,.., "
            "cidr=<network>,.. or can-reach=<host>",
        ),
        as_number=read.parse("AS", None, parse_as_number, "an AS number from 1 to 4294967295"),
        pool=_read_pool(read),
        service_host=read.text("KUBERNETES_SERVICE_HOST"),
        mtu=read.number("CNI_MTU", 0, 0, 65535),
        resync=read.number("FELIX_ROUTEREFRESHINTERVAL", defaults.resync, 1, 86400),
        endpoint_to_host=read.choice("FELIX_DEFAULTENDPOINTTOHOSTACTION", None, _ENDPOINT_TO_HOST),
        health_port=read.number("FELIX_HEALTHPORT", defaults.health_port, 1, 65535),
        metrics_enabled=read.choice("FELIX_PROMETHEUSMETRICSENABLED", False, _BOOLEANS),
        metrics_host=read.text("FELIX_PROMETHEUSMETRICSHOST", defaults.metrics_host),
        metrics_port=read.number("FELIX_PROMETHEUSMETRICSPORT", defaults.metrics_port, 1, 65535),
        log_level=read.choice("FELIX_LOGSEVERITYSCREEN", defaults.log_level, _LEVELS),
        bird_program=read.text("BIRD_PROGRAM", defaults.bird_program),
        paths=Paths(
            run=read.path("CALICO_RUN_DIR", defaults.paths.run),
            lib=read.path("CALICO_LIB_DIR", defaults.paths.lib),
            etc=read.path("CALICO_ETC_DIR", defaults.paths.etc),
        ),
    )
    read.errors.extend(reasons_against(environment))
    if read.errors:
        raise SettingsError("\n".join(read.errors))
    return settings


def _parse_ip(value: str) -> IPv4Interface | None:
    return None if value.lower() == "autodetect" else IPv4Interface(value)


def _read_pool(read: _Reader) -> DefaultPool | None:
    if (
        read.choice("NO_DEFAULT_POOLS", False, _BOOLEANS)
        or read.text("CALICO_IPV4POOL_CIDR").lower() == "none"
    ):
        return None
    pool = DefaultPool(
        cidr=read.parse(
            "CALICO_IPV4POOL_CIDR",
            IPv4Network(DEFAULT_POOL_CIDR),
            IPv4Network,
            f"a network like {DEFAULT_POOL_CIDR} (no bits set after the prefix), or `none`",
        ),
        block_size=read.number(
            "CALICO_IPV4POOL_BLOCK_SIZE", DEFAULT_BLOCK_SIZE, _LARGEST_BLOCK, _SMALLEST_BLOCK
        ),
        ipip=read.choice("CALICO_IPV4POOL_IPIP", "Never", _MODES),
        vxlan=read.choice("CALICO_IPV4POOL_VXLAN", "Never", _MODES),
        nat_outgoing=read.choice("CALICO_IPV4POOL_NAT_OUTGOING", True, _BOOLEANS),
        node_selector=read.text("CALICO_IPV4POOL_NODE_SELECTOR", "all()"),
        disable_bgp_export=read.choice("CALICO_IPV4POOL_DISABLE_BGP_EXPORT", False, _BOOLEANS),
    )
    if pool.ipip != "Never" and pool.vxlan != "Never":
        read.errors.append(
            f"CALICO_IPV4POOL_IPIP is {pool.ipip} and CALICO_IPV4POOL_VXLAN is {pool.vxlan}; "
            "one of them must be Never."
        )
    if pool.block_size < pool.cidr.prefixlen:
        read.errors.append(
            f"CALICO_IPV4POOL_BLOCK_SIZE is {pool.block_size}, larger than the pool {pool.cidr} "
            f"(CALICO_IPV4POOL_CIDR); it must be a number from {pool.cidr.prefixlen} to {_SMALLEST_BLOCK}."
        )
    return pool
