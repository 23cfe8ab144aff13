"""Machines that run what a calico-node pod runs, against a real API server, with the manifest's rights."""

import contextlib
import json
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lab import debs

from tests.components.apiserver import ApiServer
from tests.components.processes import daemon
from tests.integration.bgp.nodes import Machine, Namespace, eventually, namespace
from tortie.cni import shim

MANIFEST = Path(__file__).parents[3] / "deploy" / "tortie.yaml"
PROBE = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""
ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts"


def install_rights(server: ApiServer) -> None:
    """Apply service accounts and RBAC of the manifest; again is harmless."""
    kinds = {
        "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
        "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
        "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    }
    for document in yaml.safe_load_all(MANIFEST.read_text()):
        if document and document["kind"] in kinds:
            namespace_name = document["metadata"].get("namespace", "")
            try:
                server.request("POST", kinds[document["kind"]].format(namespace=namespace_name), document)
            except urllib.error.HTTPError as error:
                if error.code != 409:
                    raise


def agent_kubeconfig(server: ApiServer, directory: Path) -> Path:
    """A kubeconfig with the rights of a calico-node pod and no others."""
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    }
    token = server.request("POST", f"{ACCOUNT}/calico-node/token", request)["status"]["token"]
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def register(server: ApiServer, name: str, address: str) -> None:
    """What kubelet does when it joins."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    server.request("POST", "/api/v1/nodes", node)
    status = {
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": KUBELET_CONDITIONS,
        }
    }
    merge_patch(server, f"/api/v1/nodes/{name}/status", status)


KUBELET_CONDITIONS = [
    {
        "type": "Ready",
        "status": "False",
        "reason": "KubeletNotReady",
        "message": "container runtime network not ready",
        "lastTransitionTime": "2026-01-31T10:20:30Z",
        "lastHeartbeatTime": "2026-01-31T10:20:30Z",
    }
]


def merge_patch(server: ApiServer, path: str, patch: Any) -> Any:
    """PATCH as the administrator."""
    request = urllib.request.Request(server.url + path, data=json.dumps(patch).encode(), method="PATCH")
    request.add_header("Authorization", f"Bearer {server.token}")
    request.add_header("Content-Type", "application/merge-patch+json")
    context = ssl.create_default_context(cafile=server.ca)
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def api_relay(server: ApiServer, machine: Machine, directory: Path) -> Iterator[None]:
    """Make the API server's loopback port reachable in a machine, under the same address.

    Two socats with a Unix socket between them: such sockets do not care for network namespaces.
    """
    path = directory / "api.sock"
    outside = ["socat", f"UNIX-LISTEN:{path},fork", f"TCP:127.0.0.1:{server.port}"]
    inside = machine.net.command(
        "socat", f"TCP-LISTEN:{server.port},bind=127.0.0.1,fork,reuseaddr", f"UNIX-CONNECT:{path}"
    )
    with daemon(outside, directory / "relay-out.log"), daemon(inside, directory / "relay-in.log"):
        eventually("the relay", path.exists)
        yield


@dataclass
class Pod:
    """A pod's sandbox on a node."""

    name: str
    container_id: str
    net: Namespace
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The address that CNI gave it."""
        address: str = self.result["ips"][0]["address"]
        return address.split("/")[0]


@dataclass
class CalicoNode:
    """A machine with directories of its own for what the pod mounts from the host."""

    machine: Machine
    directory: Path
    server: ApiServer
    settings: dict[str, str]
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    feature_control: dict[str, bool] = field(default_factory=dict)  # of the CNI configuration
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "node.log"

    def environment(self) -> dict[str, str]:
        """Environment of the container."""
        return {
            "NODENAME": self.machine.name,
            "KUBECONFIG": str(self.directory / "kubeconfig"),
            "CALICO_RUN_DIR": str(self.directory / "run"),
            "CALICO_LIB_DIR": str(self.directory / "lib"),
            "CALICO_ETC_DIR": str(self.directory / "etc"),
            "CALICO_MANAGE_CNI": "false",
            "BIRD_PROGRAM": str(debs.extract("bird2") / "usr/sbin/bird"),
            "PYTHONPATH": str(MANIFEST.parents[1] / "src"),
            **self.settings,
        }

    def start(self, module: str = "tortie.agent.supervisor") -> None:
        """Start the container's first process."""
        words = [f"{key}={value}" for key, value in self.environment().items()]
        command = self.machine.net.command("env", *words, sys.executable, "-m", module)
        self.process = self.stack.enter_context(daemon(command, self.log))

    def health(self, path: str = "/readiness") -> tuple[int, str]:
        """Status and body of a probe; status 0 when nobody answers."""
        answer = self.machine.net.run(
            sys.executable, "-c", PROBE, f"http://127.0.0.1:9099{path}", check=False
        )
        status, _, body = answer.stdout.partition(" ")
        return int(status or 0), body

    def wait_until_ready(self) -> None:
        """Until the readiness probe passes."""
        try:
            eventually(f"{self.machine.name} ready", lambda: self.health()[0] == 200)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.health()}\n{self.log.read_text()[-6000:]}") from error

    def object(self) -> Any:
        """The Node object."""
        return self.server.request("GET", f"/api/v1/nodes/{self.machine.name}")

    @contextlib.contextmanager
    def pod(
        self, name: str, prepare: Callable[[Namespace], None] | None = None, **metadata: dict[str, str]
    ) -> Iterator[Pod]:
        """A pod whose sandbox is connected by the real CNI plugin; `prepare` is done to the sandbox before.
        `metadata` are labels and annotations."""
        with namespace() as net:
            if prepare is not None:
                prepare(net)
            pod = Pod(name, f"{name}-0123456789", net)
            body = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", **metadata},
                "spec": {"nodeName": self.machine.name, "containers": [{"name": "c", "image": "none"}]},
            }
            self.server.request("POST", "/api/v1/namespaces/default/pods", body)
            pod.result = json.loads(self.cni("ADD", pod))
            try:
                yield pod
            finally:
                self.cni("DEL", pod)

    def cni(self, command: str, pod: Pod) -> str:
        """Execute the plugin as containerd does; return its output."""
        config = {
            "cniVersion": "1.0.0",
            "name": "k8s-pod-network",
            "type": "calico",
            "ipam": {"type": "calico-ipam"},
            "feature_control": self.feature_control,
        }
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.container_id,
            "CNI_NETNS": pod.net.path,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name}",
            "CNI_PATH": "/opt/cni/bin",
            "TORTIE_CNI_SOCKET": str(self.directory / "run/cni.sock"),
            "TORTIE_CNI_JOURNAL": str(self.directory / "lib/cni-journal"),
        }
        words = [f"{key}={value}" for key, value in variables.items()]
        result = self.machine.net.run(
            "env",
            *words,
            "/usr/bin/python3",
            "-IS",
            self.directory / "calico",
            input=json.dumps(config),
            check=False,
        )
        if result.returncode:
            raise AssertionError(
                f"CNI {command}: {result.stdout}{result.stderr}\n{self.log.read_text()[-4000:]}"
            )
        return result.stdout


@contextlib.contextmanager
def calico_nodes(
    server: ApiServer, nodes: Mapping[str, Machine], directory: Path, settings: Mapping[str, str]
) -> Iterator[dict[str, CalicoNode]]:
    """Registered machines with API access, nothing of ours started yet."""
    install_rights(server)
    with contextlib.ExitStack() as stack:
        made: dict[str, CalicoNode] = {}
        for name, machine in nodes.items():
            home = directory / name
            home.mkdir()
            shutil.copy(shim.__file__, home / "calico")
            agent_kubeconfig(server, home)
            register(server, name, machine.address)
            stack.enter_context(api_relay(server, machine, home))
            made[name] = CalicoNode(machine, home, server, dict(settings))
            stack.callback(made[name].stack.close)
        yield made
