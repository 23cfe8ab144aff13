"""Where a lab lives and what it is called, from the environment; the same rules as lab/vars/lab.yml."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import LabError

ROOT = Path(__file__).resolve().parent.parent


CONTAINERS = "containers"
VMS = "vms"
# The inventory of each kind of lab, unless INVENTORY names another.
INVENTORIES = {CONTAINERS: "lab", VMS: "reference"}


@dataclass(frozen=True, slots=True)
class Settings:
    """A lab: its folder, the inventory its machines come from, and what these are (CONTAINERS or VMS)."""

    directory: Path
    inventory: str
    kind: str = CONTAINERS

    @property
    def ssh_config(self) -> Path:
        """The ssh configuration that reaches the nodes."""
        return self.directory / "ssh_config"

    @property
    def kubeconfig(self) -> Path:
        """kubeconfig for this machine: the server is on the loopback."""
        return self.directory / "kubeconfig"


def from_environment() -> Settings:
    """LAB (default: containers), LAB_DIR (.lab in the checkout) and INVENTORY (the kind's own).

    LabError for a kind that there is not.
    """
    kind = os.environ.get("LAB") or CONTAINERS
    if kind not in INVENTORIES:
        raise LabError(f"LAB is {kind!r}; set it to {' or to '.join(INVENTORIES)}.")
    directory = Path(os.environ.get("LAB_DIR") or ROOT / ".lab").absolute()
    inventory = os.environ.get("INVENTORY") or str(ROOT / "inventory" / INVENTORIES[kind])
    return Settings(directory, inventory, kind)


def api_port(settings: Settings) -> int:
    """The port of 127.0.0.1 that leads to the lab's API server. LabError when the lab is not up."""
    record = settings.directory / "api.json"
    try:
        return int(json.loads(record.read_text())["port"])
    except FileNotFoundError as error:
        raise LabError(f"{record} is missing: this lab is not up. `make up` brings it up.") from error


def tool(name: str) -> str:
    """A command of the environment that runs this program (ansible-playbook, molecule, ...)."""
    return str(Path(sys.executable).parent / name)
