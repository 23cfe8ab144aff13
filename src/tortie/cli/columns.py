"""Cells of the tables that `get` prints, out of v3 documents."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from tortie.cli.documents import Document, name_of, namespace_of

Cells = dict[str, str]
Columns = Callable[[Document], Cells]

_LONGEST_LIST: Final = 80  # characters of a joined list, as Calico cuts it


def text(value: Any) -> str:
    """A value of a document in a cell: true, 5, a,b; nothing for what is not set."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer():
            return str(int(value))
        case list():
            return ",".join(text(item) for item in value)
    return str(value)


def named(document: Document) -> Cells:
    """The columns of every kind."""
    return {"NAMESPACE": namespace_of(document), "NAME": name_of(document)}


def from_spec(**fields: str) -> Columns:
    """Columns that show a field of the spec each: heading=field."""

    def cells(document: Document) -> Cells:
        spec = document.get("spec") or {}
        return named(document) | {heading: text(spec.get(field)) for heading, field in fields.items()}

    return cells


def cut_list(heading: str, field: str) -> Columns:
    """One column with a list, joined and cut."""

    def cells(document: Document) -> Cells:
        joined = text((document.get("spec") or {}).get(field))
        cut = joined if len(joined) <= _LONGEST_LIST else joined[: _LONGEST_LIST - 3] + "..."
        return named(document) | {heading: cut}

    return cells


def bgp_peer(document: Document) -> Cells:
    """NODE is who has the session: a node, a selector or everybody."""
    spec = document.get("spec") or {}
    return named(document) | {
        "PEERIP": text(spec.get("peerIP")),
        "NODE": text(spec.get("node") or spec.get("nodeSelector") or "(global)"),
        "ASN": text(spec.get("asNumber") or 0),
    }


def bgp_configuration(document: Document) -> Cells:
    """A dash is what the object leaves to the default."""
    spec = document.get("spec") or {}
    return named(document) | {
        "LOGSEVERITY": text(spec.get("logSeverityScreen")),
        "MESHENABLED": _or_dash(spec.get("nodeToNodeMeshEnabled")),
        "ASNUMBER": _or_dash(spec.get("asNumber")),
    }


def _or_dash(value: Any) -> str:
    return "-" if value is None else text(value)


def policy(document: Document) -> Cells:
    """A policy without an order stands behind all that have one."""
    spec = document.get("spec") or {}
    return named(document) | {
        "TIER": text(spec.get("tier") or "default"),
        "ORDER": "<nil>" if spec.get("order") is None else text(spec["order"]),
        "SELECTOR": text(spec.get("selector")),
    }


def kubernetes_policy(document: Document) -> Cells:
    """The selector in `kubectl get netpol`'s words."""
    return named(document) | {"PODSELECTOR": label_selector((document.get("spec") or {}).get("podSelector"))}


def label_selector(selector: Any) -> str:
    """A metav1.LabelSelector on one line; `<none>` selects everything."""
    selector = selector if isinstance(selector, dict) else {}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or []:
        values = f" ({text(item.get('values'))})" if item.get("values") else ""
        terms.append(f"{item.get('key')} {item.get('operator')}{values}")
    return ",".join(terms) or "<none>"


def tier(document: Document) -> Cells:
    """The default action is Deny unless the tier says otherwise."""
    spec = document.get("spec") or {}
    return named(document) | {
        "ORDER": "<nil>" if spec.get("order") is None else text(spec["order"]),
        "DEFAULTACTION": text(spec.get("defaultAction") or "Deny"),
    }


def profile(document: Document) -> Cells:
    """LABELS are those that the profile gives to its endpoints."""
    labels = (document.get("spec") or {}).get("labelsToApply") or {}
    return named(document) | {"LABELS": ",".join(f"{key}={value}" for key, value in sorted(labels.items()))}


def pool(document: Document) -> Cells:
    """Switches that an object leaves out are off."""
    spec = document.get("spec") or {}
    return named(document) | {
        "CIDR": text(spec.get("cidr")),
        "NAT": text(bool(spec.get("natOutgoing"))),
        "IPIPMODE": text(spec.get("ipipMode") or "Never"),
        "VXLANMODE": text(spec.get("vxlanMode") or "Never"),
        "DISABLED": text(bool(spec.get("disabled"))),
        "DISABLEBGPEXPORT": text(bool(spec.get("disableBGPExport"))),
        "SELECTOR": text(spec.get("nodeSelector") or "all()"),
    }


def workload_endpoint(document: Document) -> Cells:
    """NATS are the endpoint's floating addresses."""
    spec = document.get("spec") or {}
    return named(document) | {
        "WORKLOAD": text(spec.get("pod")),
        "NODE": text(spec.get("node")),
        "NETWORKS": text(spec.get("ipNetworks")),
        "INTERFACE": text(spec.get("interfaceName")),
        "PROFILES": text(spec.get("profiles")),
        "NATS": ",".join(text(nat.get("externalIP")) for nat in spec.get("ipNATs") or []),
    }


def block(document: Document) -> Cells:
    """USED counts addresses that somebody holds."""
    spec = document.get("spec") or {}
    allocations: Iterable[Any] = spec.get("allocations") or []
    return named(document) | {
        "CIDR": text(spec.get("cidr")),
        "AFFINITY": text(spec.get("affinity")),
        "USED": str(sum(1 for index in allocations if index is not None)),
    }


def handle(document: Document) -> Cells:
    """USED counts the handle's addresses in all blocks."""
    spec = document.get("spec") or {}
    counts = spec.get("block") or {}
    return named(document) | {"HANDLE": text(spec.get("handleID")), "USED": str(sum(counts.values()))}


def node(document: Document) -> Cells:
    """ASN in brackets is the cluster's; whoever prints fills that in."""
    bgp = (document.get("spec") or {}).get("bgp") or {}
    return named(document) | {
        "ASN": text(bgp.get("asNumber")),
        "IPV4": text(bgp.get("ipv4Address")),
        "IPV6": text(bgp.get("ipv6Address")),
    }
