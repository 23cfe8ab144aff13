"""Network namespaces with veth pairs between them, made for one test and taken away after it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.components.carrier import wait_for_carrier

ROOT = Path(__file__).resolve().parents[3]


class Wires:
    """Namespaces by short name; the real ones carry a prefix of this process."""

    def __init__(self) -> None:
        self._prefix = f"tH-{os.getpid()}"
        self._names: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def real(self, name: str) -> str:
        """The namespace's real name."""
        return f"{self._prefix}-{name}"

    def add(self, name: str) -> None:
        """A new namespace with loopback."""
        run("ip", "netns", "add", self.real(name))
        self._names.append(name)
        self.ip(name, "link", "set", "lo", "up")

    def ip(self, name: str, *arguments: str) -> str:
        """`ip` in a namespace."""
        return run("ip", "-n", self.real(name), *arguments)

    def inside(self, name: str, *command: str, data: str = "") -> str:
        """Standard output of a command in a namespace."""
        return run("ip", "netns", "exec", self.real(name), *command, data=data)

    def link(self, left: str, right: str, device: str, far_device: str, mtu: int) -> None:
        """A veth pair between two namespaces, both ends up."""
        self.ip(left, "link", "add", device, "mtu", str(mtu), "type", "veth", "peer", "name", far_device,
                "mtu", str(mtu), "netns", self.real(right))  # fmt: skip
        self.ip(left, "link", "set", device, "up")
        self.ip(right, "link", "set", far_device, "up")
        wait_for_carrier(partial(self.ip, left), device)
        wait_for_carrier(partial(self.ip, right), far_device)

    def start(self, name: str, *command: str, **environment: str) -> None:
        """A process in a namespace, ended with it."""
        self._processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", self.real(name), *command],
                env={**os.environ, **environment},
                cwd=ROOT,
            )
        )

    def module(self, name: str, module: str, **parameters: object) -> dict[str, Any]:
        """The result of one of our Ansible modules, run in a namespace as Ansible runs it."""
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": parameters})
        path = ROOT / "plugins" / "modules" / f"{module}.py"
        python = ["env", f"PYTHONPATH={ROOT / 'collections'}", sys.executable, str(path)]
        result: dict[str, Any] = json.loads(self.inside(name, *python, data=arguments))
        return result

    def close(self) -> None:
        """End the processes and delete the namespaces."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in self._names:
            run("ip", "netns", "delete", self.real(name))


@contextmanager
def wires() -> Iterator[Wires]:
    """Wires that are gone afterwards."""
    made = Wires()
    try:
        yield made
    finally:
        made.close()


def run(*command: str, data: str = "") -> str:
    """Standard output; a failure shows what the command said."""
    done = subprocess.run(command, capture_output=True, text=True, input=data, check=False)
    if done.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def eventually(holds: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Poll until `holds`; fail with `what` when it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {seconds:g} s: {what}")
        time.sleep(0.1)
