"""Applying a delta to a state: what the dataplane's view of the world is after it."""

from tortie.policy.state import Member, PolicyDelta, PolicyState, SetID, SetKind


def apply_delta(state: PolicyState, delta: PolicyDelta) -> PolicyState:
    """The state after `delta`. Raise KeyError when the delta does not belong to `state`."""
    sets: dict[SetID, tuple[SetKind, frozenset[Member]]] = dict(state.sets)
    for set_id in delta.gone_sets:
        del sets[set_id]
    for set_id, change in delta.changed_sets.items():
        kind, members = sets[set_id]
        sets[set_id] = (kind, (members - change.removed) | change.added)
    policies = dict(state.policies)
    for key in delta.gone_policies:
        del policies[key]
    workloads = dict(state.workloads)
    for interface in delta.gone_workloads:
        del workloads[interface]
    hosts = dict(state.hosts)
    for interface in delta.gone_hosts:
        del hosts[interface]
    return PolicyState(
        sets={**sets, **delta.new_sets},
        policies={**policies, **delta.policies},
        workloads={**workloads, **delta.workloads},
        hosts={**hosts, **delta.hosts},
    )
