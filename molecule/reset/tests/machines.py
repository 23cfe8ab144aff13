"""Playbooks, machines and their written-down states, for tests that reset the scenario's machines."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils import host_state

ROOT = Path(__file__).parents[3]
LAB_DIR = Path(os.environ["LAB_DIR"])
INVENTORY = os.environ["LAB_INVENTORY"]
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=0\s+failed=0", re.MULTILINE)
VIRTUAL = os.environ.get("LAB") == "vms"
# Emulated machines are ten times slower.
PLAYBOOK_SECONDS, POD_SECONDS = (2400, 300) if VIRTUAL else (900, 90)
# What a reset does to the tunnel's device: tunl0 is the kernel's own and stays, as it was.
TUNNEL_GOES = "-set tunl0 down" if VIRTUAL else "-delete device vxlan.calico"
# No connection that Ansible keeps is taken along.
CONNECTION = ["-F", str(LAB_DIR / "ssh_config"), "-o", "ControlMaster=no", "-o", "ControlPath=none"]


@dataclass(frozen=True)
class Run:
    """How a playbook ended; changed: number of changes by host, of those that did not fail."""

    status: int
    output: str
    changed: dict[str, int]


def command(*arguments: str) -> list[str]:
    """An ansible-playbook on the scenario's inventory."""
    return [str(Path(sys.executable).parent / "ansible-playbook"), f"--inventory={INVENTORY}", *arguments]


def play(*arguments: str, may_fail: bool = False) -> Run:
    """Run a playbook."""
    # Molecule asks for colours, which the summary is read without.
    plain = {name: value for name, value in os.environ.items() if name != "ANSIBLE_FORCE_COLOR"}
    done = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**plain, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=PLAYBOOK_SECONDS,
        check=False,
    )
    output = done.stdout + done.stderr
    assert may_fail or done.returncode == 0, output
    return Run(done.returncode, output, {name: int(count) for name, count in RECAP.findall(done.stdout)})


def reset(*arguments: str) -> Run:
    """A reset that is meant."""
    return play("playbooks/reset.yml", "--extra-vars=reset_confirm=yes", *arguments)


def differences(moment: str, *hosts: str) -> dict[str, list[str]]:
    """Write the machines' state down, and how it differs from the one before everything."""
    play("molecule/reset/state.yml", f"--extra-vars=state_moment={moment}", f"--limit={','.join(hosts)}")
    folder = LAB_DIR / "state"

    def state(when: str, host: str) -> dict[str, list[str]]:
        loaded: dict[str, list[str]] = json.loads((folder / f"{when}-{host}.json").read_text())
        return loaded

    return {host: host_state.compare(state("before", host), state(moment, host)) for host in hosts}


def ssh(host: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script on a machine, through a connection of its own."""
    return subprocess.run(
        ["ssh", *CONNECTION, host, script], capture_output=True, text=True, timeout=600, check=False
    )


def ask(host: str, script: str) -> str:
    """Standard output of a script that must succeed."""
    done = ssh(host, script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll; fail with `what` when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
