"""What a pod sees of its own interface, read from /sys and /proc: the pod needs no tool for it.

The files belong to the network namespace of the process that reads them.
"""

import fcntl
import socket
import struct
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

# linux/sockios.h
SIOCGIFADDR: Final = 0x8915
SIOCGIFNETMASK: Final = 0x891B

# linux/route.h
RTF_GATEWAY: Final = 0x0002

# linux/if_arp.h
ATF_PERM: Final = 0x04

IFNAMSIZ: Final = 16  # linux/if.h


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the main table; `gateway` is empty for what is directly on the link."""

    destination: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One ARP entry; `permanent` entries are never asked for again."""

    address: str
    mac: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of this network namespace. `address` has its prefix length, empty when there is none."""

    name: str
    mtu: int
    mac: str
    address: str
    routes: list[Route]
    neighbours: list[Neighbour]

    def as_json(self) -> dict[str, Any]:
        """Plain data, as /interface answers."""
        return asdict(self)


def parse_routes(table: str, interface: str) -> list[Route]:
    """Routes of `interface` in the text of /proc/net/route (little-endian hexadecimal addresses)."""
    routes = []
    for line in table.splitlines()[1:]:
        name, destination, gateway, flags, _ref, _use, _metric, mask, *_rest = line.split()
        if name == interface:
            network = IPv4Network((_little_endian(destination), str(_little_endian(mask))))
            via = str(_little_endian(gateway)) if int(flags, 16) & RTF_GATEWAY else ""
            routes.append(Route(str(network), via))
    return routes


def parse_neighbours(table: str, interface: str) -> list[Neighbour]:
    """Entries of `interface` in the text of /proc/net/arp."""
    neighbours = []
    for line in table.splitlines()[1:]:
        address, _hardware, flags, mac, _mask, name = line.split()
        if name == interface:
            neighbours.append(Neighbour(address, mac, bool(int(flags, 16) & ATF_PERM)))
    return neighbours


def read_interface(name: str) -> Interface:
    """Read everything about interface `name`. Raise OSError when there is none of that name."""
    device = Path("/sys/class/net") / name
    return Interface(
        name=name,
        mtu=int((device / "mtu").read_text()),
        mac=(device / "address").read_text().strip(),
        address=_first_address(name),
        routes=parse_routes(Path("/proc/net/route").read_text(), name),
        neighbours=parse_neighbours(Path("/proc/net/arp").read_text(), name),
    )


def _little_endian(word: str) -> IPv4Address:
    return IPv4Address(int.from_bytes(bytes.fromhex(word), "little"))


def _first_address(name: str) -> str:
    """Address and prefix length of `name`: struct ifreq is a name, then a sockaddr_in (netdevice(7))."""
    request = struct.pack(f"{IFNAMSIZ}s24x", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            address = fcntl.ioctl(any_socket, SIOCGIFADDR, request)[20:24]
            mask = fcntl.ioctl(any_socket, SIOCGIFNETMASK, request)[20:24]
        except OSError:
            return ""
    return f"{IPv4Address(address)}/{int.from_bytes(mask, 'big').bit_count()}"
