"""Network namespaces for one test, made with `ip` and taken away after it."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.components.carrier import wait_for_carrier

_numbers = itertools.count()


def run(*command: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


class Namespace:
    """One network namespace."""

    def __init__(self) -> None:
        self.name = f"tE-{os.getpid()}-{next(_numbers)}"
        self.path = Path("/run/netns") / self.name
        run("ip", "netns", "add", self.name)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Take it away; it may be gone already."""
        os.close(self.fd)
        self.delete()

    def delete(self) -> None:
        """Remove the name; a descriptor keeps the namespace alive."""
        if self.path.exists():
            run("ip", "netns", "del", self.name)

    def ip(self, *arguments: str) -> str:
        """`ip` inside."""
        return run("ip", "-n", self.name, *arguments)

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """`ip -json` inside."""
        objects: list[dict[str, Any]] = json.loads(run("ip", "-n", self.name, "-d", "-j", *arguments) or "[]")
        return [item for item in objects if item]

    def devices(self) -> list[str]:
        """Names of the devices inside, without loopback."""
        return [item["ifname"] for item in self.json("link") if item["ifname"] != "lo"]

    def exec(self, *command: str) -> str:
        """Run a command inside; it must succeed."""
        return run("ip", "netns", "exec", self.name, *command)

    def reaches(self, address: str, size: int = 56) -> bool:
        """Whether a ping of `size` bytes that must not be fragmented is answered."""
        command = ("ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", str(size), address)
        done = subprocess.run(
            ("ip", "netns", "exec", self.name, *command), capture_output=True, timeout=60, check=False
        )
        return done.returncode == 0


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """So many namespaces, taken away at the end."""
    made: list[Namespace] = []
    try:
        for _ in range(count):
            made.append(Namespace())
        yield made
    finally:
        for namespace in made:
            namespace.close()


def wire(left: Namespace, right: Namespace, device: str = "eth0", mtu: int = 1500) -> None:
    """A link between two namespaces: `device` at both ends, up, with 192.0.2.1/24 and .2/24."""
    left.ip("link", "add", device, "mtu", str(mtu), "type", "veth",
            "peer", "name", device, "mtu", str(mtu), "netns", right.name)  # fmt: skip
    for end, address in ((left, "192.0.2.1/24"), (right, "192.0.2.2/24")):
        end.ip("addr", "add", address, "dev", device)
        end.ip("link", "set", device, "up")
        end.ip("link", "set", "lo", "up")
    wait_for_carrier(left.ip, device)
    wait_for_carrier(right.ip, device)
