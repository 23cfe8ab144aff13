"""`tortiectl ipam split`: one pool becomes several that cover the same addresses. Pure."""

from collections.abc import Sequence

import msgspec

from tortie.ipam.pools import parse_network
from tortie.model.resources import IPPool, Metadata

_MAX_NAME = 253  # characters of an object's name (RFC 1123 subdomain)


class SplitError(ValueError):
    """The pool cannot be split like this; the message says why."""


def chosen(pools: Sequence[IPPool], name: str | None, cidr: str | None) -> IPPool:
    """The pool with this name or CIDR. Raise SplitError."""
    wanted = parse_network(cidr) if cidr else None
    if cidr and wanted is None:
        raise SplitError(f"--cidr is {cidr}, which is no network; give a pool's CIDR, such as 10.5.0.0/16")
    for pool in pools:
        if pool.metadata.name == name or (wanted and parse_network(pool.spec.cidr) == wanted):
            return pool
    known = ", ".join(f"{pool.metadata.name} ({pool.spec.cidr})" for pool in pools) or "none"
    raise SplitError(f"No IPPool has the {'name ' + name if name else f'CIDR {cidr}'}; there are: {known}")


def parts(pool: IPPool, number: int) -> list[IPPool]:
    """`number` pools of equal size, named split-<pool>-<index>, otherwise like `pool`. Raise SplitError."""
    network = parse_network(pool.spec.cidr)
    if network is None:
        raise SplitError(f"IPPool {pool.metadata.name} has the CIDR {pool.spec.cidr}, which is no network")
    if number < 2 or number & (number - 1):
        raise SplitError(f"NUMBER is {number}; it must be a power of two, 2 at least")
    longer = number.bit_length() - 1
    if network.prefixlen + longer > pool.spec.block_size:
        most = 1 << (pool.spec.block_size - network.prefixlen)
        raise SplitError(
            f"IPPool {pool.metadata.name} has {most} blocks of /{pool.spec.block_size}, so it cannot become "
            f"{number} pools; {most} at most"
        )
    found: list[IPPool] = []
    for index, subnet in enumerate(network.subnets(prefixlen_diff=longer)):
        name = f"split-{pool.metadata.name}-{index}"
        if len(name) > _MAX_NAME:
            raise SplitError(f"The name {name} has more than {_MAX_NAME} characters; rename the pool first")
        metadata = Metadata(
            name=name, labels=dict(pool.metadata.labels), annotations=dict(pool.metadata.annotations)
        )
        spec = msgspec.structs.replace(pool.spec, cidr=str(subnet))
        found.append(IPPool(metadata=metadata, spec=spec))
    return found
