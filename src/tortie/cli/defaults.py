"""What Calico's API fills in before it stores an object, so that every reader sees the same."""

from typing import Any, Final

from tortie.cli.documents import Document
from tortie.cli.kinds import Kind
from tortie.model.constants import DEFAULT_BLOCK_SIZE
from tortie.model.policies import DEFAULT_TIER, EGRESS, INGRESS

_DEFAULT_BLOCK_SIZE_V6: Final = 122  # Calico: prefix length of a block of an IPv6 pool
_ALL: Final = "all()"
_POOL: Final = {
    "ipipMode": "Never",
    "vxlanMode": "Never",
    "nodeSelector": _ALL,
    "allowedUses": ["Workload", "Tunnel"],
    "assignmentMode": "Automatic",
}


def with_defaults(kind: Kind, document: Document) -> Document:
    """A copy of the document with the defaults of its kind."""
    spec = _without_none(document.get("spec") or {})
    if kind.in_tiers:
        spec = _policy(spec)
    elif kind.title == "IPPool":
        size = _DEFAULT_BLOCK_SIZE_V6 if ":" in str(spec.get("cidr", "")) else DEFAULT_BLOCK_SIZE
        spec = {"blockSize": size, **_POOL} | spec
    elif kind.title == "IPAMConfiguration":
        # Both are required in storage; true is what a cluster without the object does.
        spec = {"strictAffinity": False, "autoAllocateBlocks": True} | spec
    return {**document, "spec": spec}


def _policy(spec: dict[str, Any]) -> dict[str, Any]:
    """`types` follows from the rules: egress only when there are egress rules, ingress unless there are no
    other rules than egress. Untracked and pre-DNAT policies apply to forwarded traffic."""
    filled = {"tier": DEFAULT_TIER} | spec
    if not filled.get("types"):
        egress, ingress = bool(filled.get("egress")), bool(filled.get("ingress"))
        filled["types"] = [*([INGRESS] if ingress or not egress else []), *([EGRESS] if egress else [])]
    if filled.get("doNotTrack") or filled.get("preDNAT"):
        filled["applyOnForward"] = True
    return filled


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None}
