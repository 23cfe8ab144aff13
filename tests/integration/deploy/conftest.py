"""A real API server of our own: these tests install and remove what others rely on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import bundle

from tests.components import apiserver
from tests.components.apiserver import ApiServer

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server and the tools that administrators point at it."""

    server: ApiServer
    scratch: Path

    def kubectl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The bundle's kubectl."""
        command = [str(bundle.find() / "bin" / "kubectl"), "--kubeconfig", str(self.server.kubeconfig)]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=check, env=self._environment()
        )

    def get(self, kind: str, name: str, namespace: str = "kube-system") -> dict[str, Any]:
        """One object."""
        output = self.kubectl("get", kind, name, "--namespace", namespace, "-o", "json").stdout
        found: dict[str, Any] = json.loads(output)
        return found

    def create(self, document: dict[str, Any]) -> None:
        """Create one object."""
        path = self.scratch / "object.json"
        path.write_text(json.dumps(document))
        self.kubectl("create", "-f", str(path))

    def playbook(
        self, tasks: list[dict[str, Any]], *options: str, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run tasks on this machine as if it were the first control plane."""
        play = {"hosts": "control_plane", "gather_facts": False, "tasks": tasks}
        path = self.scratch / "play.yml"
        path.write_text(yaml.safe_dump([play], sort_keys=False))
        inventory = self.scratch / "inventory.yml"
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory.write_text(yaml.safe_dump({"control_plane": {"hosts": {"here": host}}}))
        variables = {"__tortie_kubeconfig": str(self.server.kubeconfig), **variables}
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(path)]
        return subprocess.run(
            [*command, "-e", json.dumps(variables), *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        """kubectl on PATH; HOME for its discovery cache."""
        path = f"{bundle.find() / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "HOME": str(self.scratch), "ANSIBLE_NOCOLOR": "1"}


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server with the CRDs and nothing else."""
    directory = Path(tmp_path_factory.mktemp("deploy"))
    with apiserver.running(directory) as server:
        yield Cluster(server, directory)
