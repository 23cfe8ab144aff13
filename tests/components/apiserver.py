"""A real API server: etcd and kube-apiserver of the bundle, on loopback, with RBAC and our CRDs.

    with apiserver.running(directory) as server:
        server.url, server.token, server.ca, server.kubeconfig
        server.reset()

Nothing else of a cluster runs: no controllers (a namespace has no service account unless the test makes one,
and nothing deletes what a deleted object owned), no scheduler, no kubelet.
"""

import contextlib
import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lab import bundle, cache, debs, once
from lab.bundle import images

from tests.components.certificates import Authority, new_key
from tests.components.processes import daemon, free_ports, wait_until

_CRDS = Path(__file__).parents[2] / "deploy" / "crds.yaml"
_POLL_SECONDS = 0.1
_READY_TRIES = 1200  # two minutes on an overloaded machine
_STARTS = 3  # a port may be taken between choosing and using it
_GROUP = "/apis/crd.projectcalico.org/v1"


@dataclass(frozen=True, slots=True)
class ApiServer:
    """How to reach it as its administrator. `port` and `directory` are for tests that need more."""

    url: str
    port: int
    token: str
    ca: Path
    kubeconfig: Path
    directory: Path
    authority: Authority

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API; the answer's JSON. Raise urllib.error.HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(request, context=context, timeout=120) as answer:
            return json.loads(answer.read())

    def is_ready(self) -> bool:
        """Whether every start-up check has passed."""
        request = urllib.request.Request(self.url + "/readyz")
        request.add_header("Authorization", f"Bearer {self.token}")
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(request, context=context, timeout=5):
                return True
        except OSError:
            return False

    def apply_crds(self) -> None:
        """Create the CRDs of deploy/ and wait until they are served."""
        crds = [document for document in yaml.safe_load_all(_CRDS.read_text()) if document]
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for crd in crds:
            self.request("POST", path, crd)
        names = {crd["metadata"]["name"] for crd in crds}
        for _try in range(_READY_TRIES):
            served = {
                item["metadata"]["name"] for item in self.request("GET", path)["items"] if _served(item)
            }
            if names <= served and self._lists_work(crds):
                return
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"The API server does not serve {sorted(names)}.")

    def _lists_work(self, crds: list[dict[str, Any]]) -> bool:
        """Established comes before the storage of a new resource is up."""
        try:
            for crd in crds:
                self.request("GET", f"{_GROUP}/{crd['spec']['names']['plural']}")
        except urllib.error.HTTPError:
            return False
        return True

    def reset(self) -> None:
        """Delete every object of the kinds that the network uses."""
        for resource in self.request("GET", _GROUP)["resources"]:
            name = resource["name"]
            if "/" in name:
                continue
            if not resource["namespaced"]:
                self.request("DELETE", f"{_GROUP}/{name}")
                continue
            # A collection can be deleted in one namespace only.
            found = self.request("GET", f"{_GROUP}/{name}")["items"]
            for namespace in {item["metadata"]["namespace"] for item in found}:
                self.request("DELETE", f"{_GROUP}/namespaces/{namespace}/{name}")
        for pod in self.request("GET", "/api/v1/pods")["items"]:
            metadata = pod["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}?gracePeriodSeconds=0"
            self.request("DELETE", path)
        self.request("DELETE", "/api/v1/nodes")


def _served(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []  # null until the server has looked at it
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


@contextlib.contextmanager
def running(
    directory: Path, *, address: str = "127.0.0.1", prefix: Sequence[str] = (), sans: Sequence[str] = ()
) -> Iterator[ApiServer]:
    """Start it with its files in `directory`, ready for use. It ends with the context, or with this process.

    `address`: where the API server listens; `prefix`: words before both commands, such as
    `ip netns exec NAME` (then the caller must be in that namespace too); `sans`: more names to certify.
    """
    etcd = debs.extract("etcd-server") / "usr/bin/etcd"
    program = kube_apiserver()
    authority = Authority(directory)
    for attempt in range(1, _STARTS + 1):
        with contextlib.ExitStack() as stack:
            attempt_directory = directory / str(attempt)
            attempt_directory.mkdir()
            try:
                server = _start(
                    stack,
                    attempt_directory,
                    (*prefix, str(etcd)),
                    (*prefix, str(program)),
                    authority,
                    address,
                    sans,
                )
            except RuntimeError:
                if attempt == _STARTS:
                    raise
                continue
            server.apply_crds()
            yield server
            return


def kube_apiserver() -> Path:
    """The bundle's kube-apiserver, out of its image."""
    archives = sorted((bundle.find() / "images").glob("kube-apiserver*.tar"))
    if len(archives) != 1:
        raise RuntimeError(f"The bundle has {len(archives)} kube-apiserver images, expected one: {archives}")
    image_id = images.read(archives[0])[0].image_id.removeprefix("sha256:")
    name = "kube-apiserver"

    def fill(target: Path) -> None:
        images.extract_file(archives[0], f"usr/local/bin/{name}", target / name)

    return once.make(cache.root() / "binaries" / f"{name}-{image_id[:12]}", fill) / name


def _start(
    stack: contextlib.ExitStack,
    directory: Path,
    etcd: Sequence[str],
    program: Sequence[str],
    authority: Authority,
    address: str,
    sans: Sequence[str],
) -> ApiServer:
    client_port, peer_port, port = free_ports(3)
    etcd_url = f"http://127.0.0.1:{client_port}"
    peer_url = f"http://127.0.0.1:{peer_port}"
    stack.enter_context(
        daemon(
            [
                *etcd,
                f"--data-dir={directory / 'etcd'}",
                f"--listen-client-urls={etcd_url}",
                f"--advertise-client-urls={etcd_url}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=default={peer_url}",
            ],
            directory / "etcd.log",
        )
    )
    token = secrets.token_hex(16)
    token_file = directory / "tokens.csv"
    token_file.touch(mode=0o600)
    token_file.write_text(f'{token},admin,admin,"system:masters"\n')
    serving = authority.issue("kube-apiserver", ["127.0.0.1", "localhost", address, *sans])
    signing_key = new_key(directory / "service-account.key")
    log = directory / "kube-apiserver.log"
    process = stack.enter_context(
        daemon(
            [
                *program,
                f"--etcd-servers={etcd_url}",
                f"--bind-address={address}",
                f"--secure-port={port}",
                f"--tls-cert-file={serving.certificate}",
                f"--tls-private-key-file={serving.key}",
                f"--client-ca-file={authority.certificate}",
                f"--token-auth-file={token_file}",
                "--authorization-mode=RBAC",
                "--allow-privileged=true",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={signing_key}",
                f"--service-account-key-file={signing_key}",
                "--service-cluster-ip-range=10.96.0.0/24",
                # It must not advertise a loopback address, and there is nobody to advertise to.
                "--endpoint-reconciler-type=none",
                # Without a controller no namespace has the service account that this plugin asks pods for.
                "--disable-admission-plugins=ServiceAccount",
            ],
            log,
        )
    )
    url = f"https://{address}:{port}"
    kubeconfig = _write_kubeconfig(directory / "kubeconfig", url, authority.certificate, token)
    server = ApiServer(url, port, token, authority.certificate, kubeconfig, directory, authority)
    wait_until(server.is_ready, process, log, lambda: time.sleep(_POLL_SECONDS), _READY_TRIES)
    return server


def _write_kubeconfig(path: Path, url: str, ca: Path, token: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path
