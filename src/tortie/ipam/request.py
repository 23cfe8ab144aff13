"""What the CNI server and the agent ask of address management."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from tortie.model.resources import AllowedUse

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """One container's wish. Asked again with the same handle, the same addresses are answered.

    `families` holds 4, 6 or both: one address of each, all or none. `addresses` asks for certain ones (at
    most one of each family; they replace the automatic choice of that family). `pools` names the only pools
    that may serve (IPPool names or CIDRs); None leaves the choice to the selectors. `namespace_labels` are
    what pools' namespaceSelector is matched with. `attributes` are stored with the address.
    """

    handle_id: str
    attributes: Mapping[str, str]
    families: frozenset[int] = frozenset({4})
    use: AllowedUse = "Workload"
    pools: Sequence[str] | None = None
    addresses: tuple[Address, ...] = ()
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
