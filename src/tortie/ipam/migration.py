"""From the host-local plugin's files to IPAM objects: pods keep their addresses.

host-local keeps one file per address in /var/lib/cni/networks/<network>/, named after the address (IPv6 with
`_` or `:`); its first line is the container id, the second, if any, the interface. Nothing is read of the
other files there (`last_reserved_ip.0`, `lock`).
"""

import asyncio
import fcntl
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from tortie.ipam.allocator import Allocator
from tortie.ipam.errors import AddressError
from tortie.ipam.request import Address, AddressRequest
from tortie.model.names import handle_id

HOST_LOCAL_DIR: Final = "/var/lib/cni/networks"
_LOCK_FILE: Final = "lock"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one of host-local's files says."""

    address: Address
    container_id: str


@dataclass(frozen=True, slots=True)
class Migrated:
    """`refused` has one sentence for each address that could not be kept."""

    addresses: tuple[Address, ...]
    refused: tuple[str, ...]


def parse_reservation(name: str, text: str) -> Reservation | None:
    """What a file says; None for one that is no reservation. Old versions ended lines with CR LF."""
    try:
        address = ip_address(name.replace("_", ":"))
    except ValueError:
        return None
    lines = text.split()
    return Reservation(address, lines[0]) if lines else None


def read_reservations(directory: Path) -> list[Reservation]:
    """All reservations of a network. Raise OSError when the directory exists and cannot be read."""
    if not directory.is_dir():
        return []
    found: list[Reservation] = []
    for path in sorted(directory.iterdir()):
        if path.is_file():
            reservation = parse_reservation(path.name, path.read_text(errors="replace"))
            if reservation is not None:
                found.append(reservation)
    return found


async def migrate(
    allocator: Allocator, node: str, network: str, base: Path = Path(HOST_LOCAL_DIR)
) -> Migrated:
    """Account every address that host-local gave out for `network` to its container's handle; repeating it
    changes nothing. host-local itself waits meanwhile. The files stay: their plugin's DEL removes them.

    Raise a DatastoreError or OSError; calling again continues.
    """
    directory = base / network
    if not directory.is_dir():
        return Migrated((), ())
    async with _locked(directory):
        reservations = await asyncio.to_thread(read_reservations, directory)
        return await _assign_all(allocator, node, network, reservations)


async def _assign_all(
    allocator: Allocator, node: str, network: str, reservations: Iterable[Reservation]
) -> Migrated:
    kept: list[Address] = []
    refused: list[str] = []
    by_container: dict[str, list[Address]] = {}
    for reservation in reservations:
        by_container.setdefault(reservation.container_id, []).append(reservation.address)
    for container, addresses in by_container.items():
        request = AddressRequest(
            handle_id(network, container), {"node": node}, families=frozenset(), addresses=tuple(addresses)
        )
        try:
            kept += await allocator.assign(request)
        except AddressError as error:
            refused.append(f"Container {container} of network {network}: {error}")
            log.warning("host-local's addresses of container %s are not kept: %s", container, error)
    if kept:
        log.info("Took over %d addresses of network %s from host-local", len(kept), network)
    return Migrated(tuple(kept), tuple(refused))


@asynccontextmanager
async def _locked(directory: Path) -> AsyncGenerator[None, None]:
    """Hold host-local's lock (flock on its lock file)."""
    path = directory / _LOCK_FILE
    file = await asyncio.to_thread(path.open, "a")
    try:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield
    finally:
        file.close()
