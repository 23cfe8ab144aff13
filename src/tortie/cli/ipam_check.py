"""`tortiectl ipam check`: where IPAM's objects and the cluster disagree. Pure: a picture in, a report out."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from tortie.controllers.picture import Allocation, Picture, judge
from tortie.ipam import block as blocks
from tortie.ipam.handles import block_networks
from tortie.ipam.pools import parse_network
from tortie.ipam.request import Address
from tortie.model.names import handle_name

REPORT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Checked:
    """One address that is allocated. `reason` says why nobody seems to use it; empty when somebody does."""

    allocation: Allocation
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """`problems` has one sentence for each thing that is wrong, unused addresses among them."""

    allocations: tuple[Checked, ...]
    problems: tuple[str, ...]

    @property
    def unused(self) -> list[Checked]:
        """What could be released."""
        return [item for item in self.allocations if item.reason]


def check(picture: Picture, tunnels: Mapping[str, frozenset[Address]]) -> Report:
    """Compare. `tunnels`: the tunnel addresses that nodes announce."""
    found = sorted(
        (_checked(allocation, picture) for allocation in picture.allocations()),
        key=lambda item: blocks.position(item.allocation.address),
    )
    problems = [
        f"{item.allocation.address} is allocated but not in use: {item.reason}"
        for item in found
        if item.reason
    ]
    problems += _not_allocated(picture, tunnels, {item.allocation.address for item in found})
    problems += _outside_pools(picture)
    problems += _handles(picture)
    problems += _affinities(picture)
    return Report(tuple(found), tuple(problems))


def _checked(allocation: Allocation, picture: Picture) -> Checked:
    pod = picture.pods.get(allocation.pod) if allocation.pod else None
    exists = allocation.node in picture.nodes
    verdict = judge(allocation, exists, pod)
    if verdict == "valid":
        return Checked(allocation, "")
    name = "/".join(allocation.pod) if allocation.pod else ""
    if not exists and pod is None:
        return Checked(allocation, f"node {allocation.node} does not exist")
    if pod is None:
        return Checked(allocation, f"pod {name} does not exist")
    if pod.over:
        return Checked(allocation, f"pod {name} is over")
    if pod.node != allocation.node:
        return Checked(allocation, f"pod {name} is on node {pod.node or '(none)'}, not on {allocation.node}")
    others = ", ".join(map(str, sorted(pod.addresses, key=blocks.position)))
    return Checked(allocation, f"pod {name} has {others}")


def _not_allocated(
    picture: Picture, tunnels: Mapping[str, frozenset[Address]], allocated: set[Address]
) -> Iterator[str]:
    """Addresses of our pools that are in use although nothing says so; and those that are used twice."""
    pools = [network for pool in picture.pools if (network := parse_network(pool.spec.cidr)) is not None]
    users: dict[Address, list[str]] = defaultdict(list)
    for (namespace, name), pod in sorted(picture.pods.items()):
        if not pod.over:
            for address in pod.addresses:
                users[address].append(f"pod {namespace}/{name}")
    for node, addresses in sorted(tunnels.items()):
        for address in addresses:
            users[address].append(f"node {node} (tunnel)")
    for address, names in sorted(users.items(), key=lambda pair: blocks.position(pair[0])):
        if not any(address in pool for pool in pools):
            continue
        if address not in allocated:
            yield f"{address} is used by {' and '.join(names)} but not allocated"
        if len(names) > 1:
            yield f"{address} is used more than once: by {' and '.join(names)}"


def _outside_pools(picture: Picture) -> Iterator[str]:
    pools = [network for pool in picture.pools if (network := parse_network(pool.spec.cidr)) is not None]
    for cidr in picture.blocks:
        if not any(blocks.within(cidr, pool) for pool in pools):
            yield f"block {cidr} is in no IP pool"


def _handles(picture: Picture) -> Iterator[str]:
    handles = {handle.metadata.name: handle for handle in picture.handles}
    held: set[str] = set()
    for allocation in picture.allocations():
        if allocation.handle_id is None:
            continue
        name = handle_name(allocation.handle_id)
        held.add(name)
        handle = handles.get(name)
        if handle is None:
            yield f"{allocation.address} is held by handle {allocation.handle_id}, which does not exist"
        elif allocation.block not in block_networks(handle):
            yield (
                f"{allocation.address} is held by handle {allocation.handle_id}, which does not name block "
                f"{allocation.block}"
            )
    for name in sorted(handles.keys() - held):
        yield f"handle {name} holds no address"


def _affinities(picture: Picture) -> Iterator[str]:
    claimed: dict[str, list[str]] = defaultdict(list)
    for affinity in picture.affinities:
        spec = affinity.spec
        cidr = parse_network(spec.cidr)
        block = picture.blocks.get(cidr) if cidr is not None else None
        if spec.state != "confirmed":
            yield f"node {spec.node} has claimed block {spec.cidr} in part only (state {spec.state})"
            continue
        claimed[spec.cidr].append(spec.node)
        if block is None:
            yield f"node {spec.node} claims block {spec.cidr}, which does not exist"
        elif spec.type == "host" and not blocks.belongs_to(block, spec.node):
            yield f"node {spec.node} claims block {spec.cidr}, which is {block.spec.affinity or 'nobody'}'s"
    for cidr, block in picture.blocks.items():
        owner = blocks.owner(block)
        if owner is not None and owner not in claimed[str(cidr)]:
            yield f"block {cidr} is {owner}'s, which has no confirmed affinity for it"


def text_of(report: Report, picture: Picture, show_all: bool, show_problems: bool) -> str:
    """What people read."""
    lines = [
        f"{len(picture.blocks)} blocks, {len(picture.handles)} handles, {len(picture.pools)} pools, "
        f"{len(picture.nodes)} nodes, {len(picture.pods)} pods.",
        f"{len(report.allocations)} addresses are allocated, {len(report.unused)} of them not in use.",
    ]
    if show_all:
        for item in report.allocations:
            state = f"not in use: {item.reason}" if item.reason else "in use"
            lines.append(f"  {item.allocation.address} {item.allocation.handle_id or 'no handle'}: {state}")
    if show_problems:
        lines += [f"  {problem}" for problem in report.problems]
    lines.append(f"Check complete; found {len(report.problems)} problems.")
    return "\n".join(lines) + "\n"


def document_of(report: Report, cluster: str, created: str) -> dict[str, Any]:
    """What `-o` writes and `release --from-report` reads."""
    return {
        "version": REPORT_VERSION,
        "clusterGUID": cluster,
        "created": created,
        "allocations": {
            str(item.allocation.address): {
                "inUse": not item.reason,
                "reason": item.reason,
                "block": str(item.allocation.block),
                "handle": item.allocation.handle_id,
                "sequenceNumber": item.allocation.sequence,
                "node": item.allocation.node,
                "pod": "/".join(item.allocation.pod) if item.allocation.pod else None,
            }
            for item in report.allocations
        },
        "problems": list(report.problems),
    }


class _Entry(msgspec.Struct, rename="camel", kw_only=True):
    """One allocation of a report."""

    in_use: bool
    block: str
    handle: str | None = None
    sequence_number: int | None = None


class _Document(msgspec.Struct, rename="camel", kw_only=True):
    """What is read of a report."""

    version: int
    cluster_guid: str = msgspec.field(name="clusterGUID")
    allocations: dict[str, _Entry]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a report calls unused: sequence numbers by address."""

    cluster: str
    unused: Mapping[Address, int | None]


def read_report(text: bytes) -> Reported:
    """Read what `document_of` made. Raise ValueError."""
    document = msgspec.json.decode(text, type=_Document)
    if document.version != REPORT_VERSION:
        raise ValueError(f"version is {document.version}; this program reads {REPORT_VERSION}")
    return Reported(
        document.cluster_guid,
        {
            ip_address(address): entry.sequence_number
            for address, entry in document.allocations.items()
            if not entry.in_use
        },
    )


def in_all(reports: list[Reported]) -> dict[Address, int | None]:
    """The allocations that every report calls unused."""
    first, *others = reports
    return {
        address: sequence
        for address, sequence in first.unused.items()
        if all(address in other.unused and other.unused[address] == sequence for other in others)
    }
