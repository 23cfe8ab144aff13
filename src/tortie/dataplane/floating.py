"""Floating addresses in the kernel: translation by nftables, and a route to the pod's device.

The kernel says to whom an address may float: only to a pod whose device stands and has the pod's own
address routed to it. So what the API still tells of a pod that is gone, or of its earlier address, does no
harm.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from tortie.dataplane import conntrack, floating_routes, floating_table, workload_check
from tortie.dataplane.floating_routes import HostRoute
from tortie.dataplane.floating_table import Loaded
from tortie.dataplane.kept_socket import KeptSocket
from tortie.dataplane.netlink import DataplaneError, NetlinkError, Socket
from tortie.dataplane.nfnetlink import Netfilter
from tortie.model.floating import Address
from tortie.routing.floating import (
    FloatingDemand,
    FloatingPod,
    FloatingState,
    translate,
    without,
)

log = logging.getLogger(__name__)

ATTEMPTS = 3  # somebody else may change the table between reading and changing it


@dataclass(frozen=True, slots=True)
class Applied:
    """What is in force now; a sentence for each change made, and for what somebody else had changed."""

    state: FloatingState
    changes: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()


class FloatingDataplane:
    """Floating addresses of the calling thread's network namespace. Blocking; one call at a time."""

    def __init__(self) -> None:
        # Routes that are here because of us; None until the kernel was asked what an earlier agent left.
        self._routes: set[HostRoute] | None = None
        self._state = FloatingState()
        self._kernel = KeptSocket()

    @property
    def holds_something(self) -> bool:
        """Whether there may be something to take away."""
        return self._routes is None or bool(self._routes or self._state.translations)

    def apply(self, demand: FloatingDemand) -> Applied:
        """Make the kernel hold this and nothing else of ours. Repeating it repairs. Raise DataplaneError.

        A new address is routed before it is translated, and a packet that comes in between finds the pod
        deaf to it; one that goes ceases to be routed first.
        """
        with Socket() as sock, self._kernel.use() as kernel:
            held = self._held(sock)
            self._routes = None  # unknown, until all of it went well
            state, wanted, names = _wanted(sock, demand)
            changes = floating_routes.remove(sock, held - wanted.keys(), names)
            failed: list[tuple[Address, str]] = []
            placed: set[HostRoute] = set()
            for route, device in wanted.items():
                try:
                    if floating_routes.add(sock, route, device):
                        changes.append(f"add route {route.address} dev {device}")
                except DataplaneError as error:
                    failed.append((route.address, str(error)))
                else:
                    placed.add(route)
            state = without(state, failed)
            touched, repaired = _load(kernel, state, self._state)
            self._state = state
            for address in touched:
                # What was opened before follows the old translation, a busy UDP flow for ever.
                conntrack.forget_calls_to(kernel, address)
                translation = state.translations.get(address)
                to = f"leads to {translation.internal}" if translation else "leads nowhere now"
                changes.append(f"floating address {address} {to}")
            self._routes = placed
            return Applied(state, tuple(changes), repaired)

    def differences(self, interface: str) -> list[str]:
        """What of an interface's floating addresses is not in the kernel as it was put there, one sentence
        each. Raise DataplaneError."""
        mine = [item for item in self._state.translations.values() if item.interface == interface]
        if not mine:
            return []
        with Socket() as sock, self._kernel.use() as kernel:
            loaded = floating_table.read(kernel)
            translated = floating_table.externals(loaded.content)
            link = workload_check.find(sock, interface)
            routed = {
                route.address
                for version in {item.external.version for item in mine}
                for route in (floating_routes.host_routes(sock, version, link.index) if link else ())
            }
        found = list(loaded.differences) if loaded.present else [f"table {floating_table.TABLE} is gone"]
        for item in mine:
            if loaded.present and not loaded.differences and translated.get(item.external) != item.internal:
                found.append(f"floating address {item.external} is not translated to {item.internal}")
            if item.external not in routed:
                found.append(f"the node has no route {item.external} dev {interface}")
        return found

    def _held(self, sock: Socket) -> set[HostRoute]:
        return floating_routes.of_nobody(sock) if self._routes is None else self._routes


def _wanted(
    sock: Socket, demand: FloatingDemand
) -> tuple[FloatingState, dict[HostRoute, str], dict[int, str]]:
    """What is to be in force, its routes with their devices' names, and names of devices by index."""
    indexes: dict[str, int] = {}
    pods: list[FloatingPod] = []
    for pod in demand.pods:
        link = workload_check.find(sock, pod.interface)
        if link is None or link.kind != "veth":
            continue
        # The API learns a pod's address some time after its ADD, the kernel never forgets it.
        known = dict.fromkeys((*pod.internal, *floating_routes.own_addresses(sock, link.index)))
        own = tuple(address for address in known if _is_behind(sock, link.index, address))
        if own:
            indexes[pod.interface] = link.index
            pods.append(FloatingPod(pod.name, pod.interface, own, pod.external))
    taken = dict(demand.taken)
    if pods:
        taken |= dict.fromkeys(floating_routes.host_addresses(sock), "the node itself")
    state = translate(FloatingDemand(tuple(pods), taken))
    routes = {
        HostRoute(external, indexes[item.interface]): item.interface
        for external, item in state.translations.items()
    }
    return state, routes, {index: name for name, index in indexes.items()}


def _is_behind(sock: Socket, index: int, address: Address) -> bool:
    """Whether the kernel routes the address to this device."""
    return HostRoute(address, index) in floating_routes.host_routes(sock, address.version, index)


def _load(
    kernel: Netfilter, state: FloatingState, before: FloatingState
) -> tuple[list[Address], tuple[str, ...]]:
    """Make the table hold the state; return addresses whose translation changed, and what somebody else had
    changed. Raise NetlinkError."""
    translations = {external: item.internal for external, item in state.translations.items()}
    wanted = floating_table.content(translations, state.hairpins())
    for attempt in range(1, ATTEMPTS + 1):
        loaded = floating_table.read(kernel)
        messages = floating_table.changes(loaded, wanted)
        try:
            kernel.transaction(messages)
        except NetlinkError as error:
            if attempt == ATTEMPTS:
                raise
            log.warning("cannot change table %s, trying again: %s", floating_table.TABLE, error)
            continue
        break
    held = floating_table.externals(loaded.content)
    touched = [
        address
        for address in held.keys() | translations.keys()
        if held.get(address) != translations.get(address)
    ]
    return sorted(touched, key=lambda item: (item.version, int(item))), _tampering(loaded, before)


def _tampering(loaded: Loaded, before: FloatingState) -> tuple[str, ...]:
    """What is not as we left it."""
    if loaded.differences:
        return loaded.differences
    left = {external: item.internal for external, item in before.translations.items()}
    if left and not loaded.present:
        return (f"table {floating_table.TABLE} is gone",)
    held = floating_table.externals(loaded.content)
    if left and floating_table.content(left, before.hairpins()) != loaded.content:
        return (f"the maps of table {floating_table.TABLE} held other translations: {_shown(held)}",)
    return ()


def _shown(held: dict[Address, Address]) -> str:
    pairs: Iterable[str] = (f"{external} to {internal}" for external, internal in held.items())
    return ", ".join(sorted(pairs)) or "none"
