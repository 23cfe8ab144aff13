"""Which policies an endpoint is asked about, tier by tier, in order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tortie.model.policies import Tier
from tortie.model.policy_validation import TIER_ORDERS
from tortie.policy.compile import NO_ORDER, CompiledPolicy
from tortie.policy.state import TierRules


@dataclass(frozen=True, slots=True)
class TierPlace:
    """Where a tier stands and how it ends."""

    order: float = NO_ORDER
    default_pass: bool = False
    known: bool = True


# Tiers that need no object. Those of the Kubernetes policy API hand on what they do not decide.
BUILT_IN: Final[Mapping[str, TierPlace]] = {
    name: TierPlace(float(order), default_pass=name != "default") for name, order in TIER_ORDERS.items()
}
# A policy may name a tier that nobody made. Such tiers come last and deny what their policies do not decide.
UNKNOWN: Final = TierPlace(known=False)


@dataclass(frozen=True, slots=True)
class Layers:
    """The tiers of one endpoint, by when they are asked; see state.HostRules."""

    normal: tuple[TierRules, ...] = ()
    forward: tuple[TierRules, ...] = ()
    untracked: tuple[TierRules, ...] = ()
    pre_dnat: tuple[TierRules, ...] = ()


def tier_place(tier: Tier) -> TierPlace:
    """The place that a Tier object gives."""
    order = tier.spec.order
    return TierPlace(NO_ORDER if order is None else float(order), tier.spec.default_action == "Pass")


def place_of(name: str, tiers: Mapping[str, TierPlace]) -> TierPlace:
    """The place of the tier called `name`; `tiers` are the places that objects give."""
    return tiers.get(name) or BUILT_IN.get(name) or UNKNOWN


def workload_tiers(
    policies: Iterable[CompiledPolicy], tiers: Mapping[str, TierPlace]
) -> tuple[TierRules, ...]:
    """The tiers that these policies make for a workload; staged ones do not count, nor do those that are for
    host endpoints only."""
    return _assemble([policy for policy in policies if not policy.host_only], tiers)


def host_layers(policies: Iterable[CompiledPolicy], tiers: Mapping[str, TierPlace]) -> Layers:
    """The layers that these policies make for a host endpoint; staged ones do not count."""
    found = list(policies)
    return Layers(
        normal=workload_tiers(found, tiers),
        forward=workload_tiers((policy for policy in found if policy.forward), tiers),
        untracked=_assemble([policy for policy in found if policy.untracked], tiers),
        pre_dnat=_assemble([policy for policy in found if policy.pre_dnat], tiers),
    )


def _assemble(policies: list[CompiledPolicy], tiers: Mapping[str, TierPlace]) -> tuple[TierRules, ...]:
    by_tier: dict[str, list[CompiledPolicy]] = {}
    for policy in policies:
        if not policy.staged_action:
            by_tier.setdefault(policy.tier, []).append(policy)
    names = sorted(by_tier, key=lambda name: _tier_key(name, tiers)) if len(by_tier) > 1 else by_tier
    return tuple(_tier_rules(name, place_of(name, tiers), by_tier[name]) for name in names)


def _sort_key(policy: CompiledPolicy) -> tuple[float, str]:
    return policy.sort_key


def _tier_key(name: str, tiers: Mapping[str, TierPlace]) -> tuple[bool, float, str]:
    place = place_of(name, tiers)
    return not place.known, place.order, name


def _tier_rules(name: str, place: TierPlace, policies: list[CompiledPolicy]) -> TierRules:
    policies.sort(key=_sort_key)
    return TierRules(
        name=name,
        ingress=tuple([policy.key for policy in policies if policy.ingress]),
        egress=tuple([policy.key for policy in policies if policy.egress]),
        default_pass=place.default_pass,
    )
