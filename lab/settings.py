"""Where a lab lives and what it is called, from the environment; the same rules as lab/vars/lab.yml."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import LabError

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Settings:
    """A lab: its folder, and the inventory its machines come from."""

    directory: Path
    inventory: str

    @property
    def ssh_config(self) -> Path:
        """The ssh configuration that reaches the nodes."""
        return self.directory / "ssh_config"

    @property
    def kubeconfig(self) -> Path:
        """kubeconfig for this machine: the server is on the loopback."""
        return self.directory / "kubeconfig"


def from_environment() -> Settings:
    """LAB_DIR (default: .lab in the checkout) and INVENTORY (default: inventory/lab)."""
    directory = Path(os.environ.get("LAB_DIR") or ROOT / ".lab").absolute()
    return Settings(directory, os.environ.get("INVENTORY") or str(ROOT / "inventory" / "lab"))


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
