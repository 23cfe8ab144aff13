"""Put the role's settings into the manifests of deploy/: documents in, documents out, nothing else.

Runs on the controller (filter plugin). The overrides are structural: an environment variable or an image is
found by name in the DaemonSet, so that a manifest that no longer has it is an error, not a silent loss.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

Document = dict[str, Any]

DAEMONSET = "calico-node"
POOL = "default-ipv4-ippool"
# On the pods: which build of the image they run, so that a new build of the same name rolls out.
IMAGE_ANNOTATION = "tortie/image-id"
AUTODETECTION_METHODS = ("first-found", "kubernetes-internal-ip")
AUTODETECTION_PREFIXES = ("interface=", "skip-interface=", "cidr=", "can-reach=")

# Calico's names for the modes of a pool.
POOL_MODES = {"always": "Always", "cross-subnet": "CrossSubnet"}

# What a field that is absent from an IPPool means (Calico's defaults).
POOL_DEFAULTS = {
    "spec.blockSize": 26,
    "spec.ipipMode": "Never",
    "spec.vxlanMode": "Never",
    "spec.natOutgoing": False,
}
POOL_IMMUTABLE = ["spec.cidr", "spec.blockSize"]
POOL_REMEDY = (
    "Set tortie_ipv4pool_cidr and tortie_ipv4pool_block_size back to what the pool has; to move the pods to "
    "other addresses, add a second pool, disable this one and restart the pods (docs/network.md)."
)

# Variables that the manifest does not have: the API server drops an empty value, so it would always differ.
OPTIONAL_VARIABLES = frozenset({"AS"})

# RFC 791: every link carries 68 bytes; the largest packet has 65535.
MTU_RANGE = range(68, 65536)
# A block of 4096 addresses is the largest that Calico allows, one of a single address the smallest.
BLOCK_SIZES = range(20, 33)
AS_NUMBERS = range(1, 2**32)

SETTINGS = (
    "as_number",
    "block_size",
    "encapsulation",
    "encapsulation_mode",
    "image",
    "image_id",
    "ip_autodetection_method",
    "mtu",
    "nat_outgoing",
    "pool_cidr",
)


class SettingsError(ValueError):
    """A setting is missing, unknown or out of range, or the manifest has no place for it."""


def render(documents: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[Document]:
    """Copies of the documents, with the settings in the DaemonSet calico-node and the image everywhere.

    `settings` has exactly the keys of SETTINGS; an empty image_id means an image that the nodes pull. Raise
    SettingsError with every problem, one sentence each.
    """
    overrides = environment(settings)
    rendered = [copy.deepcopy(dict(document)) for document in documents if document]
    templates = [
        document["spec"]["template"]
        for document in rendered
        if document.get("kind") == "DaemonSet" and document["metadata"]["name"] == DAEMONSET
    ]
    if len(templates) != 1:
        raise SettingsError(
            f"The manifests hold {len(templates)} DaemonSets named {DAEMONSET} instead of one."
        )
    templates += [item["spec"]["template"] for item in rendered if item.get("kind") == "Deployment"]
    for template in templates:
        _set_image(template, settings)
    for container in templates[0]["spec"]["containers"]:
        if container["name"] == DAEMONSET:
            _set_environment(container, overrides)
    return rendered


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """The calico-node container's environment variables that follow from the settings."""
    problems = list(_problems(settings))
    if problems:
        raise SettingsError(" ".join(problems))
    ipip, vxlan = pool_modes(settings)
    fixed_as = {} if str(settings["as_number"]) == "auto" else {"AS": str(int(settings["as_number"]))}
    return {
        **fixed_as,
        "CALICO_IPV4POOL_BLOCK_SIZE": str(int(settings["block_size"])),
        "CALICO_IPV4POOL_CIDR": str(settings["pool_cidr"]),
        "CALICO_IPV4POOL_IPIP": ipip,
        "CALICO_IPV4POOL_NAT_OUTGOING": "true" if _boolean(settings["nat_outgoing"]) else "false",
        "CALICO_IPV4POOL_VXLAN": vxlan,
        "CNI_MTU": "0" if str(settings["mtu"]) == "auto" else str(int(settings["mtu"])),
        "IP_AUTODETECTION_METHOD": str(settings["ip_autodetection_method"]),
    }


def pool_modes(settings: Mapping[str, Any]) -> tuple[str, str]:
    """ipipMode and vxlanMode; at most one of them differs from Never."""
    mode = POOL_MODES[str(settings["encapsulation_mode"])]
    encapsulation = str(settings["encapsulation"])
    return (mode if encapsulation == "ipip" else "Never", mode if encapsulation == "vxlan" else "Never")


def pool_patch(settings: Mapping[str, Any]) -> Document:
    """One element of kube_apply's `patches`: what the default pool has to be, if it exists."""
    problems = list(_problems(settings))
    if problems:
        raise SettingsError(" ".join(problems))
    ipip, vxlan = pool_modes(settings)
    return {
        "definition": {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPPool",
            "metadata": {"name": POOL},
            "spec": {
                "cidr": str(settings["pool_cidr"]),
                "blockSize": int(settings["block_size"]),
                "ipipMode": ipip,
                "vxlanMode": vxlan,
                "natOutgoing": _boolean(settings["nat_outgoing"]),
            },
        },
        "absent_means": dict(POOL_DEFAULTS),
        "immutable": list(POOL_IMMUTABLE),
        "remedy": POOL_REMEDY,
    }


def _set_image(template: Document, settings: Mapping[str, Any]) -> None:
    """The same image for all: calico-node and the controllers are one program."""
    if settings["image_id"]:
        annotations = template["metadata"].setdefault("annotations", {})
        annotations[IMAGE_ANNOTATION] = str(settings["image_id"])
    pod = template["spec"]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        container["image"] = str(settings["image"])


def _set_environment(container: Document, overrides: Mapping[str, str]) -> None:
    present = {item["name"]: item for item in container.get("env", [])}
    for name in sorted(OPTIONAL_VARIABLES & set(overrides) - set(present)):
        present[name] = {"name": name}
        container.setdefault("env", []).append(present[name])
    missing = sorted(set(overrides) - set(present))
    if missing:
        raise SettingsError(
            f"The manifest's container {container['name']} has no environment variable {', '.join(missing)}: "
            "add it to deploy/tortie.yaml."
        )
    for name, value in overrides.items():
        present[name]["value"] = value


def _boolean(value: Any) -> bool:
    """Ansible hands over true booleans and, from the command line, strings."""
    return str(value).strip().lower() in ("true", "yes", "on", "1")


def _problems(settings: Mapping[str, Any]) -> Iterable[str]:
    missing = sorted(set(SETTINGS) - set(settings))
    unknown = sorted(set(settings) - set(SETTINGS))
    if missing or unknown:
        yield f"The settings lack {missing} and have the unknown {unknown}; expected are {list(SETTINGS)}."
        return
    if not str(settings["image"]).strip():
        yield "tortie_image is empty; name the image of the network, for example localhost/tortie-node:0.1.0."
    if str(settings["encapsulation"]) not in ("ipip", "vxlan", "none"):
        yield f"tortie_encapsulation is {settings['encapsulation']!r}; it must be ipip, vxlan or none."
    if str(settings["encapsulation_mode"]) not in POOL_MODES:
        mode = settings["encapsulation_mode"]
        yield f"tortie_encapsulation_mode is {mode!r}; it must be always or cross-subnet."
    if str(settings["mtu"]) != "auto":
        yield from _number("tortie_mtu", settings["mtu"], MTU_RANGE, "auto, or a number of bytes")
    yield from _number("tortie_ipv4pool_block_size", settings["block_size"], BLOCK_SIZES, "a prefix length")
    if str(settings["as_number"]) != "auto":
        yield from _number("tortie_as_number", settings["as_number"], AS_NUMBERS, "auto, or an AS number")
    yield from _pool_problems(str(settings["pool_cidr"]), settings["block_size"])
    method = str(settings["ip_autodetection_method"])
    argument = method.partition("=")[2]
    if method not in AUTODETECTION_METHODS and not (method.startswith(AUTODETECTION_PREFIXES) and argument):
        yield (
            f"tortie_ip_autodetection_method is {method!r}; it must be one of "
            f"{', '.join(AUTODETECTION_METHODS)} or start with one of {', '.join(AUTODETECTION_PREFIXES)}."
        )


def _number(variable: str, value: Any, allowed: range, meaning: str) -> Iterable[str]:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) not in allowed:
        yield f"{variable} is {value!r}; it must be {meaning} from {allowed[0]} to {allowed[-1]}."


def _pool_problems(cidr: str, block_size: Any) -> Iterable[str]:
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        yield f"tortie_ipv4pool_cidr is {cidr!r}, no IPv4 network ({error}); write it like 10.5.0.0/16."
        return
    if str(block_size).isdigit() and network.prefixlen > int(block_size):
        yield (
            f"tortie_ipv4pool_cidr {cidr} is smaller than one block of /{block_size} "
            "(tortie_ipv4pool_block_size); choose a larger pool or smaller blocks."
        )
