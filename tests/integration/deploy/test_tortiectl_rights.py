"""tortiectl inside the calico-node pod has the pod's rights, and they are enough."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.deploy.conftest import ROOT, Cluster


@pytest.fixture(scope="module")
def kubeconfig(cluster: Cluster) -> Path:
    """Credentials of service account calico-node."""
    cluster.kubectl("apply", "-f", str(ROOT / "deploy"))
    path = "/api/v1/namespaces/kube-system/serviceaccounts/calico-node/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster.server.request("POST", path, request)["status"]["token"]
    config = yaml.safe_load(cluster.server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    target = cluster.scratch / "calico-node.kubeconfig"
    target.write_text(yaml.safe_dump(config))
    return target


@pytest.mark.parametrize(
    "words",
    [
        ["get", "nodes", "-o", "wide"],
        ["get", "ippools"],
        ["get", "blockaffinities"],
        ["get", "workloadendpoints", "-A"],
        ["ipam", "show", "--show-blocks"],
    ],
    ids=" ".join,
)
def test_command_works_with_the_rights_of_calico_node(kubeconfig: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "tortie.cli.main", "--kubeconfig", str(kubeconfig), *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT / "src")
    assert (result.returncode, result.stderr) == (0, "")
