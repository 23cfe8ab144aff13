# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Restart systemd-networkd without losing anybody's routes.

networkd.conf(5) is read at start only. At its start networkd takes routes of protocol `static` on its links
for its own and removes those that its files do not name, also with ManageForeignRoutes=no.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ansible_collections.tortie.cluster.plugins.module_utils import host

UNIT = "systemd-networkd.service"
VERSIONS = ("-4", "-6")
# The kernel's own, and what comes again by itself.
OTHERS = ("proto kernel", "proto ra", "proto dhcp")
# Seconds until networkd has configured its links; it takes less than one.
PATIENCE = 15.0


def restart() -> str:
    """Restart it, and put back the routes that are gone then. Return an empty string, or what went wrong."""
    before = {version: routes(version) for version in VERSIONS}
    if host.output("systemctl", "restart", UNIT)[0] != 0:
        return f"{UNIT} does not start with our files; see 'journalctl -u {UNIT}'."
    wait(settled)
    lost = [
        (version, route)
        for version, known in before.items()
        for route in known
        if route not in routes(version)
        and host.output("ip", version, "route", "add", *route.split())[0] != 0
        and route not in routes(version)
    ]
    if lost:
        named = "; ".join(f"ip {version} route add {route}" for version, route in lost)
        return f"{UNIT} removed routes when it was restarted, and they cannot be put back: {named}."
    return ""


def routes(version: str) -> list[str]:
    """Routes of all tables but the kernel's, each as `ip route add` takes it."""
    lines = host.output("ip", "-oneline", version, "route", "show", "table", "all")[1].splitlines()
    found = [" ".join(line.replace("\\", " ").split()) for line in lines]
    return [line for line in found if line and not any(other in line for other in OTHERS)]


def settled() -> bool:
    """Whether every link is as networkd wants it."""
    status, text = host.output("networkctl", "list", "--no-legend", "--no-pager")
    states = {words[-1] for words in map(str.split, text.splitlines()) if words}
    return status == 0 and not states & {"pending", "initialized", "configuring"}


def wait(condition: Callable[[], bool]) -> None:
    """Poll until it holds, or the patience is over."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
