"""Ends established connections that policy has come to deny.

The rules accept what is established before they look at policy, so a changed policy says nothing about it.
Deleting the connection's entry would not do: the kernel takes its next packet, in whichever direction, for
the first of a new connection, and the other direction's policy may allow that. So the entry is marked, the
rules drop what carries the mark, in both directions, and the entry ends by its timeout. Once policy allows
the connection again the mark is taken away.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from threading import Lock

from tortie.dataplane import conntrack, rtnetlink
from tortie.dataplane.conntrack import Connection
from tortie.dataplane.conntrack_verdicts import Judge
from tortie.dataplane.netlink import Message, Socket
from tortie.dataplane.nfnetlink import Netfilter
from tortie.dataplane.ruleset import Ruleset
from tortie.policy.state import Address, WorkloadRules

CHUNK = 200  # connections that are judged before a waiting change gets its turn
IPV6_ADDRESSES = Path("/proc/thread-self/net/if_inet6")  # the calling thread's namespace


@dataclass(slots=True)
class Pending:
    """Whose connections have to be looked at: workloads by interface, and addresses that nobody has now."""

    interfaces: set[str] = field(default_factory=set)
    gone: set[Address] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.interfaces or self.gone)

    def merge(self, other: "Pending") -> None:
        """Take what another has."""
        self.interfaces |= other.interfaces
        self.gone |= other.gone


def addresses(workload: WorkloadRules) -> set[Address]:
    """The workload's own addresses."""
    return {
        network.network_address
        for network in workload.addresses
        if network.prefixlen == network.max_prefixlen
    }


def cut(ruleset: Ruleset, lock: Lock, pending: Pending, kernel: Netfilter) -> int:
    """Look at the connections; return how many were ended. `lock` guards the ruleset. Raise NetlinkError."""
    if conntrack.tracked() == 0:
        return 0
    with lock:
        owners = {item: rules.interface for rules in ruleset.workloads.values() for item in addresses(rules)}
        looked_at = frozenset(item for item, owner in owners.items() if owner in pending.interfaces)
    gone = frozenset(pending.gone - owners.keys())
    if not looked_at and not gone:
        return 0
    with Socket() as route:
        local = {item.interface.ip for item in rtnetlink.addresses(route)} | _local_ipv6()
        found = list(conntrack.connections(kernel, looked_at | gone))
        ended = 0
        messages: list[Message] = []
        for start in range(0, len(found), CHUNK):
            with lock:
                judge = Judge(ruleset)
                for connection in found[start : start + CHUNK]:
                    if connection.source in gone or connection.destination in gone:
                        messages.append(conntrack.forget(connection))
                        ended += 1
                        continue
                    allowed = _allowed(ruleset.workloads, judge, owners, local, connection)
                    marked = bool(connection.mark & ruleset.settings.cut)
                    if allowed == marked:
                        bits = 0 if allowed else ruleset.settings.cut
                        messages.append(conntrack.mark(connection, bits, ruleset.settings.cut))
                        ended += not allowed
        # A connection that ended meanwhile is no longer there.
        conntrack.send(kernel, messages, tolerated=errno.ENOENT)
    return ended


def _allowed(
    workloads: Mapping[str, WorkloadRules],
    judge: Judge,
    owners: Mapping[Address, str],
    local: set[IPv4Address | IPv6Address],
    connection: Connection,
) -> bool:
    """Both sides' policy. The node reaches its own workloads whatever their policy says."""
    sender = workloads.get(owners.get(connection.source, ""))
    if sender is not None and not judge.allows(sender, connection, ingress=False):
        return False
    receiver = workloads.get(owners.get(connection.destination, ""))
    if receiver is None or connection.source in local:
        return True
    return judge.allows(receiver, connection, ingress=True)


def _local_ipv6() -> set[IPv4Address | IPv6Address]:
    """The namespace's IPv6 addresses; none on a kernel without IPv6."""
    if not IPV6_ADDRESSES.exists():
        return set()
    return {IPv6Address(bytes.fromhex(line.split()[0])) for line in IPV6_ADDRESSES.read_text().splitlines()}
