"""What bench/policy.py and bench/policy_packets.py load: the same work for us and for iptables.

The peer's rules are written the way Felix writes them for iptables, without the comment that Felix puts on
every rule. Each policy allows the members of one set to one port. The peer's sets are ipsets, as Felix makes
them.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from tortie.policy.state import (
    Action,
    Peer,
    PolicyKey,
    PolicyRules,
    PolicyState,
    Rule,
    SetID,
    SetKind,
    TierRules,
    WorkloadRules,
)

PROFILE = PolicyKey("Profile", "kns.bench")
SHARED = 20  # policies that each apply to many endpoints
MEMBERS = 1  # addresses per set
TCP = 6
ALLOW_ALL = PolicyRules((Rule(Action.ALLOW),), (Rule(Action.ALLOW),))


@contextmanager
def namespace(name: str) -> Iterator[int]:
    """A network namespace of ours; the descriptor keeps it alive."""
    full = full_name(name)
    run("ip", "netns", "add", full)
    descriptor = os.open(Path("/run/netns") / full, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        run("ip", "netns", "del", full)


def full_name(name: str) -> str:
    return f"tE-bench-{os.getpid()}-{name}"


def run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")


def policy_key(number: int) -> PolicyKey:
    return PolicyKey("NetworkPolicy", f"policy-{number}", "bench")


def _address(number: int) -> IPv4Network:
    return IPv4Network(0x0A000000 + 1 + number)


def _chosen(number: int, policies: int) -> list[int]:
    """The policies that apply to an endpoint: one almost of its own, and one of the shared ones."""
    return sorted({number % policies, number % SHARED})


def workload(number: int, policies: int) -> WorkloadRules:
    tiers = (TierRules("default", tuple(policy_key(item) for item in _chosen(number, policies))),)
    return WorkloadRules(f"cali{number:011d}", (_address(number),), tiers=tiers, profiles=(PROFILE,))


def policy_rules(number: int, port: int = 80) -> PolicyRules:
    peer = Peer(sets=(SetID(f"set-{number}"),))
    return PolicyRules(
        (Rule(Action.ALLOW, protocol=TCP, source=peer, destination=Peer(ports=((port, port),))),)
    )


def policy_state(endpoints: int, policies: int) -> PolicyState:
    return PolicyState(
        sets={
            SetID(f"set-{number}"): (
                SetKind.NETWORKS,
                frozenset(_address(number * MEMBERS + member) for member in range(MEMBERS)),
            )
            for number in range(policies)
        },
        policies={PROFILE: ALLOW_ALL}
        | {policy_key(number): policy_rules(number) for number in range(policies)},
        workloads={item.interface: item for item in (workload(n, policies) for n in range(endpoints))},
    )


def _iptables_endpoint(number: int, policies: int) -> tuple[list[str], list[str]]:
    """Chains and rules of one endpoint as Felix writes them."""
    name = f"{number:011d}"
    chains = [f":cali-tw-{name} - [0:0]", f":cali-fw-{name} - [0:0]"]
    accepted = "-m mark --mark 0x10000/0x10000 -j RETURN"
    head = (
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate INVALID -j DROP",
        "-j MARK --set-xmark 0x0/0x30000",
    )
    profile = ("-j cali-pri-bench", accepted, "-j DROP")
    tier = [
        line
        for policy in _chosen(number, policies)
        for line in (f"-m mark --mark 0x0/0x20000 -j cali-pi-{policy}", accepted)
    ]
    to = (*head, *tier, "-m mark --mark 0x0/0x20000 -j DROP", *profile)
    out = (*head, "-p udp -m udp --dport 4789 -j DROP", "-p 4 -j DROP", *profile)
    rules = [f"-A cali-tw-{name} {line}" for line in to] + [f"-A cali-fw-{name} {line}" for line in out]
    return chains, [
        *rules,
        f"-A cali-to-wl-dispatch -o cali{name} -g cali-tw-{name}",
        f"-A cali-from-wl-dispatch -i cali{name} -g cali-fw-{name}",
    ]


def iptables_text(endpoints: int, policies: int) -> str:
    chains = [":cali-to-wl-dispatch - [0:0]", ":cali-from-wl-dispatch - [0:0]", ":cali-pri-bench - [0:0]"]
    rules = ["-A cali-pri-bench -j MARK --set-xmark 0x10000/0x10000"]
    for number in range(policies):
        chains.append(f":cali-pi-{number} - [0:0]")
        match = f"-p tcp -m set --match-set {_ipset(number)} src -m tcp --dport 80"
        rules.append(f"-A cali-pi-{number} {match} -j MARK --set-xmark 0x10000/0x10000")
        rules.append(f"-A cali-pi-{number} -m mark --mark 0x10000/0x10000 -j RETURN")
    for number in range(endpoints):
        more_chains, more_rules = _iptables_endpoint(number, policies)
        chains += more_chains
        rules += more_rules
    rules += [
        "-A FORWARD -i cali+ -j cali-from-wl-dispatch",
        "-A FORWARD -o cali+ -j cali-to-wl-dispatch",
    ]
    return "\n".join(["*filter", *chains, *rules, "COMMIT", ""])


def _ipset(number: int) -> str:
    return f"cali40s-{number:019d}"


def ipsets_text(policies: int) -> str:
    """All sets with their members, as Felix makes them; those of the last load are emptied first."""
    lines = []
    for number in range(policies):
        lines.append(f"create {_ipset(number)} hash:net family inet maxelem 1048576")
        lines.append(f"flush {_ipset(number)}")
        lines += [f"add {_ipset(number)} {_address(number * MEMBERS + item)}" for item in range(MEMBERS)]
    return "\n".join([*lines, ""])


def restore_sets(sets: str) -> None:
    run("ipset", "restore", "-exist", text=sets)


def iptables_change(number: int, policies: int, *, add: bool) -> str:
    chains, rules = _iptables_endpoint(number, policies)
    if add:
        return "\n".join(["*filter", *chains, *rules, "COMMIT", ""])
    gone = [line.replace("-A ", "-D ", 1) for line in rules if "dispatch" in line]
    gone += [f"{command} {line.split()[0][1:]}" for line in chains for command in ("-F", "-X")]
    return "\n".join(["*filter", *gone, "COMMIT", ""])


PEERS = ("iptables-nft-restore", "iptables-legacy-restore")
