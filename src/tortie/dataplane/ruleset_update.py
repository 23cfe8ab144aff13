"""What a change of policy changes in the table, and what rules mean for it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tortie.dataplane.nfnetlink_objects import Element, SetType
from tortie.dataplane.ruleset_endpoints import Purpose
from tortie.policy.state import Action, PolicyRules, Rule, SetID


@dataclass(slots=True)
class Update:
    """What to change in the table. `chains` has the new content of chains that are new or changed;
    an element that is in `removed` and in `added` gets another verdict. `gone_sets` and `gone_elements` go
    afterwards, in a transaction of their own: a packet on its way through the old rules may still ask."""

    new_sets: dict[str, SetType] = field(default_factory=dict)
    chains: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    new_chains: set[str] = field(default_factory=set)
    removed: dict[str, set[Element]] = field(default_factory=dict)
    added: dict[str, set[Element]] = field(default_factory=dict)
    gone_chains: set[str] = field(default_factory=set)
    gone_sets: set[str] = field(default_factory=set)
    gone_elements: dict[str, set[Element]] = field(default_factory=dict)

    @property
    def afterwards(self) -> bool:
        """Whether there is a second transaction."""
        return bool(self.gone_sets or self.gone_elements)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.new_sets or self.chains or self.removed or self.added or self.gone_chains or self.afterwards
        )


def passing_purposes(rules: PolicyRules) -> Iterator[Purpose]:
    """For what the policy has a rule that leaves the tier."""
    for ingress, part in ((True, rules.ingress), (False, rules.egress)):
        for rule in part:
            if rule.action is Action.NEXT_TIER:
                yield from (purpose for purpose in Purpose if purpose.ingress == ingress)
                break


def sets_of(rules: Iterable[Rule]) -> frozenset[SetID]:
    """Every set that the rules name."""
    found: set[SetID] = set()
    for rule in rules:
        for peer in (rule.source, rule.destination):
            found.update(peer.sets, peer.not_sets, peer.named_ports, peer.not_named_ports, peer.service_ports)
    return frozenset(found)
