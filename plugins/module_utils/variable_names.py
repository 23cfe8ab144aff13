# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Find variables that look like ours but are read by nobody, and say which one was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

# With these prefixes every name is ours, so that an unknown one is always a mistake.
OWN_PREFIXES = ("kubernetes_", "tortie_", "containerd_", "control_plane_", "preflight_")
# These are everyday words that other people's variables begin with too: only a near miss is a mistake.
SHARED_PREFIXES = ("node_", "worker_")
NEAR_MISS = 0.8  # difflib's ratio: one or two letters wrong in a name of this length


def unknown_variables(names_by_host: Mapping[str, Iterable[str]], known: Iterable[str]) -> Iterator[str]:
    """A sentence for each variable that no role reads.

    names_by_host: the names that the inventory (or the command line) sets for each host; known: the names
    that the roles define. Names with a double underscore are a role's internals (registered results) and
    are passed over.
    """
    defined = sorted(set(known))
    hosts_by_name: dict[str, list[str]] = {}
    for host, names in names_by_host.items():
        for name in names:
            if "__" not in name and name not in defined and name.startswith(OWN_PREFIXES + SHARED_PREFIXES):
                hosts_by_name.setdefault(str(name), []).append(host)
    for name, hosts in sorted(hosts_by_name.items()):
        near = difflib.get_close_matches(
            name, defined, n=1, cutoff=NEAR_MISS if name.startswith(SHARED_PREFIXES) else 0.6
        )
        if near:
            yield f"variable {name} (set for {_some(hosts)}) is not read by any role; did you mean {near[0]}?"
        elif name.startswith(OWN_PREFIXES):
            yield (
                f"variable {name} (set for {_some(hosts)}) is not read by any role; remove it, or see the"
                " defaults of the roles for the names."
            )


def _some(hosts: list[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= 3 else f"{hosts[0]} and {len(hosts) - 1} more hosts"
