"""Which host endpoint is for which interface of the node."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tortie.model.problems import Problem
from tortie.policy.items import Item
from tortie.policy.state import Address

Interfaces = Mapping[str, frozenset[Address]]  # addresses by interface, of the node's own


@dataclass(frozen=True, slots=True)
class Assignment:
    """`endpoints` by interface, `*` among them; `problems` of those that got none, by the endpoint's name."""

    endpoints: Mapping[str, Item]
    problems: tuple[tuple[str, Problem], ...] = ()


def assign(endpoints: Iterable[Item], interfaces: Interfaces) -> Assignment:
    """An endpoint with an interface's name is for that one, others are for those with one of their addresses.
    Where two claim one interface, the one with the name wins, then the one whose own name comes first."""
    ordered = sorted(endpoints, key=lambda item: (not item.interface, item.id))
    chosen: dict[str, Item] = {}
    problems: list[tuple[str, Problem]] = []
    for item in ordered:
        name = item.id[2]
        wanted = [item.interface] if item.interface else _by_address(item, interfaces)
        if not wanted:
            addresses = ", ".join(str(network.network_address) for network in item.networks)
            rule = "must have an address of one of the node's interfaces: it is not in force"
            problems.append((name, Problem("spec.expectedIPs", addresses, rule)))
        for interface in wanted:
            winner = chosen.setdefault(interface, item)
            if winner is not item:
                rule = f"has HostEndpoint {winner.id[2]} already: this one is not in force there"
                problems.append((name, Problem("spec.interfaceName", interface, rule)))
    return Assignment(chosen, tuple(problems))


def _by_address(item: Item, interfaces: Interfaces) -> list[str]:
    expected = {network.network_address for network in item.networks}
    return [name for name, addresses in sorted(interfaces.items()) if expected & addresses]
