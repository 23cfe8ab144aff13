"""What a container wants: annotations of pod and namespace, arguments of the runtime, network configuration.

Precedence, as in Calico: pod before namespace before configuration. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

from tortie.cni.config import Request
from tortie.cni.errors import BAD_CONFIG, BAD_ENVIRONMENT, CNIError
from tortie.cni.netconf import interface_of
from tortie.cni.result import in_order
from tortie.dataplane.rtnetlink import mac_bytes, mac_text
from tortie.dataplane.workload_link import Address
from tortie.model.constants import ANNOTATION_FLOATING
from tortie.model.floating import FloatingError, parse_floating

_PREFIX: Final = "cni.projectcalico.org/"
ANNOTATION_POOLS: Final = {4: f"{_PREFIX}ipv4pools", 6: f"{_PREFIX}ipv6pools"}
ANNOTATION_FAMILIES: Final = f"{_PREFIX}ipFamilies"
ANNOTATION_ADDRESSES: Final = f"{_PREFIX}ipAddrs"
ANNOTATION_ADDRESSES_NO_IPAM: Final = f"{_PREFIX}ipAddrsNoIpam"
ANNOTATION_MAC: Final = f"{_PREFIX}hwAddr"
ANNOTATION_SOURCES: Final = f"{_PREFIX}allowedSourcePrefixes"
_FAMILIES: Final = {"IPv4": 4, "IPv6": 6}
_NO_ANNOTATIONS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a container is to get.

    `pools` are, by family, names or CIDRs of the only pools that may serve. `addresses` are certain ones;
    with `without_ipam` they are used as they are, and nobody accounts for them. `mac` None lets the kernel
    choose. `sources` are what the pod may send from beside its own addresses (CIDRs). `floating` are
    addresses that shall lead to it.
    """

    families: frozenset[int]
    pools: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    without_ipam: bool = False
    mac: str | None = None
    sources: tuple[IPv4Network | IPv6Network, ...] = ()
    floating: tuple[Address, ...] = ()


def wish(
    request: Request,
    pod: Mapping[str, str] = _NO_ANNOTATIONS,
    namespace: Mapping[str, str] = _NO_ANNOTATIONS,
) -> Wish:
    """The wish of a request; `pod` and `namespace` are annotations. Raise CNIError."""
    addresses, without_ipam = _addresses(request, pod)
    families = _families(request, pod, namespace)
    if addresses:
        families = frozenset(address.version for address in addresses)
    return Wish(
        families=families,
        pools=_pools(request, pod, namespace, families),
        addresses=addresses,
        without_ipam=without_ipam,
        mac=_mac(request, pod),
        sources=_sources(pod),
        floating=_floating(request, pod),
    )


def check_floating(wish: Wish, addresses: Sequence[Address]) -> None:
    """Raise CNIError for a floating address that cannot lead to a pod with these addresses of its own.

    Better a pod that does not start than one that lacks what it asked for.
    """
    families = {address.version for address in addresses}
    for floating in wish.floating:
        if floating.version not in families:
            raise CNIError(
                BAD_CONFIG,
                f"annotation {ANNOTATION_FLOATING} holds {floating}, and the pod has no "
                f"IPv{floating.version} address that it could lead to; remove it, or give the pod one",
            )
        if floating in addresses:
            raise CNIError(
                BAD_CONFIG,
                f"annotation {ANNOTATION_FLOATING} holds {floating}, which is the pod's own address; "
                "remove it",
            )


def _floating(request: Request, pod: Mapping[str, str]) -> tuple[Address, ...]:
    text = pod.get(ANNOTATION_FLOATING)
    if not text:
        return ()
    if not request.config.feature_control.floating_ips:
        raise CNIError(
            BAD_CONFIG,
            f"annotation {ANNOTATION_FLOATING} is not permitted; "
            "set feature_control.floating_ips to true in the network configuration",
        )
    try:
        return parse_floating(text)
    except FloatingError as error:
        raise CNIError(BAD_CONFIG, str(error)) from error


def _strings(annotation: str, text: str, example: str) -> list[str]:
    """A JSON list of strings."""
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise CNIError(
            BAD_CONFIG, f"annotation {annotation} is {text!a}; it must be a JSON list, for example {example}"
        )
    return values


def _families(request: Request, pod: Mapping[str, str], namespace: Mapping[str, str]) -> frozenset[int]:
    text = pod.get(ANNOTATION_FAMILIES) or namespace.get(ANNOTATION_FAMILIES)
    if not text:
        return request.config.families
    values = _strings(ANNOTATION_FAMILIES, text, '["IPv4","IPv6"]')
    if not values or not set(values) <= _FAMILIES.keys():
        raise CNIError(
            BAD_CONFIG, f'annotation {ANNOTATION_FAMILIES} is {text!a}; it may hold "IPv4" and "IPv6"'
        )
    return frozenset(_FAMILIES[value] for value in values)


def _pools(
    request: Request, pod: Mapping[str, str], namespace: Mapping[str, str], families: frozenset[int]
) -> dict[int, tuple[str, ...]]:
    """The pools by family; a family without a word about pools may use any."""
    configured = {4: request.config.ipam.ipv4_pools, 6: request.config.ipam.ipv6_pools}
    chosen: dict[int, tuple[str, ...]] = {}
    for family in sorted(families):
        annotation = ANNOTATION_POOLS[family]
        text = pod.get(annotation) or namespace.get(annotation)
        names = _strings(annotation, text, '["default-ipv4-ippool"]') if text else configured[family]
        if names:
            chosen[family] = tuple(names)
    return chosen


def _addresses(request: Request, pod: Mapping[str, str]) -> tuple[tuple[Address, ...], bool]:
    """Certain addresses, and whether they bypass address management."""
    plain, bypass = pod.get(ANNOTATION_ADDRESSES), pod.get(ANNOTATION_ADDRESSES_NO_IPAM)
    if plain and bypass:
        raise CNIError(
            BAD_CONFIG,
            f"the pod has annotations {ANNOTATION_ADDRESSES} and {ANNOTATION_ADDRESSES_NO_IPAM}; remove one",
        )
    if bypass and not request.config.feature_control.ip_addrs_no_ipam:
        raise CNIError(
            BAD_CONFIG,
            f"annotation {ANNOTATION_ADDRESSES_NO_IPAM} is not permitted; "
            "set feature_control.ip_addrs_no_ipam to true in the network configuration",
        )
    if plain and request.config.delegates:
        raise CNIError(
            BAD_CONFIG,
            f"annotation {ANNOTATION_ADDRESSES} needs ipam.type calico-ipam, not {request.config.ipam.type}",
        )
    if plain or bypass:
        where = ANNOTATION_ADDRESSES if plain else ANNOTATION_ADDRESSES_NO_IPAM
        where = f"annotation {where}"
        texts = _strings(where.removeprefix("annotation "), plain or bypass or "", '["10.5.0.7"]')
    elif argument := request.arguments.get("IP"):
        where, texts = "CNI_ARGS IP", argument.split(",")
    else:
        where, texts = "runtimeConfig.ips", request.config.runtime_config.ips
    if (plain or bypass) and not texts:
        raise CNIError(BAD_CONFIG, f"{where} is empty; name an address, or remove it")
    found = in_order([interface_of(text, where).ip for text in texts])
    if len({address.version for address in found}) != len(found):
        raise CNIError(BAD_CONFIG, f"{where} is {texts}; at most one address of each family is possible")
    if not plain and not bypass and request.config.delegates:
        return (), False  # the other plugin reads them itself
    return found, bool(bypass)


def _mac(request: Request, pod: Mapping[str, str]) -> str | None:
    """A hardware address in lower case."""
    sources = (
        (f"annotation {ANNOTATION_MAC}", pod.get(ANNOTATION_MAC), BAD_CONFIG),
        ("CNI_ARGS MAC", request.arguments.get("MAC"), BAD_ENVIRONMENT),
        ("runtimeConfig.mac", request.config.runtime_config.mac, BAD_CONFIG),
    )
    for where, text, code in sources:
        if not text:
            continue
        try:
            octets = mac_bytes(text)
        except (ValueError, OverflowError) as error:
            raise CNIError(code, f"{where} is {text!a}; it must be like 0a:58:0a:05:00:07") from error
        if octets[0] & 1 or not any(octets):  # IEEE 802: the lowest bit means multicast
            raise CNIError(
                code, f"{where} is {text!a}, which no interface can have; choose a unicast address"
            )
        return mac_text(octets)
    return None


def _sources(pod: Mapping[str, str]) -> tuple[IPv4Network | IPv6Network, ...]:
    text = pod.get(ANNOTATION_SOURCES)
    if not text:
        return ()
    networks: list[IPv4Network | IPv6Network] = []
    for value in _strings(ANNOTATION_SOURCES, text, '["10.9.0.0/16"]'):
        try:
            networks.append(ip_network(value, strict=False))
        except ValueError as error:
            raise CNIError(BAD_CONFIG, f"annotation {ANNOTATION_SOURCES} holds {value!a}: {error}") from error
    return tuple(networks)
