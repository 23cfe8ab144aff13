# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Kubernetes' chains in iptables: find them in what `iptables-save` prints, and say in the language of
`iptables-restore --noflush` what removes them and the rules that lead into them, and nothing else. Pure.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

# kube-proxy and kubelet; the portmap plugin (CNI-HOSTPORT-*, CNI-DN-*, CNI-SN-*).
OURS = re.compile(r"(KUBE|CNI)-[A-Za-z0-9_-]+")
# The agent's rules in chain FORWARD (src/tortie/dataplane/policy_forward.py) carry this comment.
FORWARD_COMMENT = "tortie: policy is decided in table tortie_policy"
JUMPS = ("-j", "-g", "--jump", "--goto")


@dataclass
class TableRemoval:
    """rules: lines `-A CHAIN ...` of chains that are not ours, which lead into ours; chains: ours."""

    rules: list[str] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)


def find(saved: str) -> dict[str, TableRemoval]:
    """What is to be removed, by table; tables without anything of ours are left out."""
    found: dict[str, TableRemoval] = {}
    table = TableRemoval()
    for line in saved.splitlines():
        if line.startswith("*"):
            table = found.setdefault(line[1:].strip(), TableRemoval())
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            if policy == "-" and OURS.fullmatch(chain):
                table.chains.append(chain)
        elif line.startswith("-A "):
            chain = line.split()[1]
            into_ours = bool(OURS.fullmatch(target(line) or ""))
            if not OURS.fullmatch(chain) and (into_ours or FORWARD_COMMENT in line):
                table.rules.append(line)
    return {name: removal for name, removal in found.items() if removal.rules or removal.chains}


def target(rule: str) -> str | None:
    """Where a rule leads: the argument of its -j or -g."""
    words = shlex.split(rule)
    for option, argument in zip(words, words[1:]):
        if option in JUMPS:
            return argument
    return None


def script(found: dict[str, TableRemoval]) -> str:
    """Input of `iptables-restore --noflush`: each table is changed in one transaction."""
    lines: list[str] = []
    for name, removal in found.items():
        lines.append(f"*{name}")
        lines += [re.sub("^-A ", "-D ", rule) for rule in removal.rules]
        # First all are emptied, because they lead into each other.
        lines += [f"-F {chain}" for chain in removal.chains]
        lines += [f"-X {chain}" for chain in removal.chains]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)
