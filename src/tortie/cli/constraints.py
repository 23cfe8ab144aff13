"""What an object must respect beyond its own fields: its former self, and the other objects."""

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final

from tortie.cli.documents import Document, name_of
from tortie.cli.kinds import Kind
from tortie.model.policies import DEFAULT_TIER

# Tiers that exist without anybody's doing (Calico's API server creates them).
BUILT_IN_TIERS: Final = ("default", "kube-admin", "kube-baseline")
# Fields that are fixed once the object exists. A pool's blocks are cut already.
_IMMUTABLE: Final[dict[str, tuple[str, ...]]] = {"IPPool": ("cidr", "blockSize")}


class RefusedError(Exception):
    """The request makes no sense; the message says why and what to do instead."""


def refuse_immutable(kind: Kind, old: Document, new: Document) -> None:
    """Raise RefusedError when a field changes that must not."""
    for field in _IMMUTABLE.get(kind.title, ()):
        was, wanted = old["spec"].get(field), new["spec"].get(field)
        if was is not None and was != wanted:
            raise RefusedError(
                f"{kind.title} {name_of(old)}: spec.{field} is {was!r} and cannot become {wanted!r}; create "
                "another object and delete this one"
            )
    if kind.title == "Tier" and name_of(old) in BUILT_IN_TIERS:
        was, wanted = old["spec"].get("order"), new["spec"].get("order")
        if was is not None and was != wanted:
            raise RefusedError(
                f"Tier {name_of(old)}: spec.order {was} is built in and cannot become {wanted}"
            )


def refuse_overlap(pool: Document, others: Iterable[Document]) -> None:
    """Raise RefusedError when the pool shares addresses with another one."""
    cidr = ip_network(pool["spec"]["cidr"], strict=False)
    for other in others:
        try:
            taken = ip_network(other["spec"].get("cidr", ""), strict=False)
        except ValueError:
            continue  # that object is broken, not this one
        if cidr.version == taken.version and cidr.overlaps(taken):
            raise RefusedError(
                f"IPPool {name_of(pool)}: spec.cidr {str(cidr)!r} overlaps with pool {name_of(other)} "
                f"({taken}); choose another range"
            )


def refuse_tier_in_use(tier: str, policies: Iterable[tuple[Kind, Document]]) -> None:
    """Raise RefusedError when a tier must not go: it is built in, or has policies."""
    if tier in BUILT_IN_TIERS:
        raise RefusedError(f"Tier {tier} cannot be deleted: it is built in")
    for kind, item in policies:
        if (item["spec"].get("tier") or DEFAULT_TIER) == tier:
            raise RefusedError(
                f"Tier {tier} cannot be deleted: {kind.title} {name_of(item)} is in it; delete its "
                "policies first"
            )
