"""What a set of addresses or ports stands for, and what one endpoint or network set adds to it."""

from dataclasses import dataclass
from functools import cached_property

from tortie.model.selectors import Selector, unique_id
from tortie.policy.items import Item
from tortie.policy.state import Member, NamedPort, SetID, SetKind


@dataclass(frozen=True)
class SelectorSet:
    """The addresses of everything that a selector matches."""

    selector: Selector
    kind = SetKind.NETWORKS

    @cached_property
    def id(self) -> SetID:
        """As Calico names it."""
        return SetID(self.selector.unique_id)

    def members(self, item: Item) -> tuple[Member, ...]:
        """What `item` adds when the selector matches it."""
        return item.networks


@dataclass(frozen=True)
class NamedPortSet:
    """The ports called `port` of everything that a selector matches; `protocol` is a number."""

    selector: Selector
    port: str
    protocol: int
    kind = SetKind.NAMED_PORT

    @cached_property
    def id(self) -> SetID:
        """Equal for equal selector, protocol and name."""
        return SetID(unique_id("n", f"{self.selector.text},{self.protocol},{self.port}"))

    def members(self, item: Item) -> tuple[Member, ...]:
        """What `item` adds when the selector matches it."""
        return tuple(
            NamedPort(network.network_address, port.protocol, port.port)
            for port in item.ports
            if port.name == self.port and port.protocol == self.protocol
            for network in item.networks
        )


@dataclass(frozen=True)
class ServiceSet:
    """The endpoints of a Service, with or without their ports."""

    namespace: str
    name: str
    with_ports: bool

    @property
    def kind(self) -> SetKind:
        """NAMED_PORT when ports count."""
        return SetKind.NAMED_PORT if self.with_ports else SetKind.NETWORKS

    @cached_property
    def id(self) -> SetID:
        """Equal for the same service and use of ports."""
        return SetID(unique_id("svc" if self.with_ports else "svcnoport", f"{self.namespace}/{self.name}"))


LabelledSet = SelectorSet | NamedPortSet
SetDefinition = SelectorSet | NamedPortSet | ServiceSet
