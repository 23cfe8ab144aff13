"""The API client of the modules against a real API server: credentials, one connection, nothing kept."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tortie.cluster.plugins.module_utils import kube_api
from lab import bundle

from tests.components.certificates import Authority
from tests.components.proxy import proxy_to
from tests.integration.deploy.conftest import ROOT, Cluster

NODES = "/api/v1/nodes"


def run_command(words: list[str]) -> tuple[int, str, str]:
    """As AnsibleModule.run_command."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def connect(kubeconfig: Path, scratch: Path) -> kube_api.Api:
    """A client with the bundle's kubectl."""
    kubectl = str(bundle.find() / "bin" / "kubectl")
    return kube_api.Api(kube_api.access(str(kubeconfig), kubectl, run_command, str(scratch)), timeout=30)


def kubeconfig(cluster: Cluster, path: Path, user: dict[str, Any], **changes: Any) -> Path:
    """The server's kubeconfig with another user and other fields of its cluster."""
    config = yaml.safe_load(cluster.server.kubeconfig.read_text())
    config["users"][0]["user"] = user
    config["clusters"][0]["cluster"].update(changes)
    path.write_text(yaml.safe_dump(config))
    return path


def encoded(path: Path) -> str:
    """As kubeadm writes certificates and keys into a kubeconfig."""
    return base64.b64encode(path.read_bytes()).decode()


def test_client_certificate_is_accepted_and_its_key_does_not_stay_on_disk(
    cluster: Cluster, tmp_path: Path
) -> None:
    pair = cluster.server.authority.issue("h-admin", organization="system:masters")
    user = {
        "client-certificate-data": encoded(pair.certificate),
        "client-key-data": encoded(pair.key),
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    api = connect(kubeconfig(cluster, tmp_path / "config", user), scratch)
    assert api.items(NODES) == cluster.server.request("GET", NODES)["items"]
    assert list(scratch.iterdir()) == []


def test_files_beside_the_kubeconfig_are_found(cluster: Cluster, tmp_path: Path) -> None:
    pair = cluster.server.authority.issue("h-files", organization="system:masters")
    for source, name in ((pair.certificate, "client.crt"), (pair.key, "client.key")):
        (tmp_path / name).write_bytes(source.read_bytes())
    user = {"client-certificate": "client.crt", "client-key": "client.key"}
    api = connect(kubeconfig(cluster, tmp_path / "config", user), tmp_path)
    assert api.get("/api/v1/namespaces/kube-system") is not None


def test_token_of_a_file_is_accepted(cluster: Cluster, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(cluster.server.token + "\n")
    api = connect(kubeconfig(cluster, tmp_path / "config", {"tokenFile": str(token)}), tmp_path)
    assert api.get("/api/v1/namespaces/kube-system") is not None


def test_wrong_token_is_refused_with_the_servers_word(cluster: Cluster, tmp_path: Path) -> None:
    api = connect(kubeconfig(cluster, tmp_path / "config", {"token": "wrong"}), tmp_path)
    with pytest.raises(kube_api.ApiError, match="Unauthorized") as caught:
        api.get("/api/v1/namespaces/kube-system")
    assert caught.value.status == 401


def test_server_of_another_authority_is_not_trusted(cluster: Cluster, tmp_path: Path) -> None:
    other = Authority(tmp_path).certificate
    user = {"token": cluster.server.token}
    changes = {"certificate-authority": str(other)}
    api = connect(kubeconfig(cluster, tmp_path / "config", user, **changes), tmp_path)
    with pytest.raises(kube_api.ApiError, match="is not to be trusted"):
        api.get(NODES)


def test_name_of_the_certificate_may_differ_from_the_address(cluster: Cluster, tmp_path: Path) -> None:
    user = {"token": cluster.server.token}
    wrong = kubeconfig(cluster, tmp_path / "wrong", user, **{"tls-server-name": "elsewhere.example.org"})
    with pytest.raises(kube_api.ApiError, match="is not to be trusted"):
        connect(wrong, tmp_path).get(NODES)
    right = kubeconfig(cluster, tmp_path / "right", user, **{"tls-server-name": "localhost"})
    assert connect(right, tmp_path).get(NODES) is not None


async def test_connection_is_kept_and_replaced_when_it_breaks(cluster: Cluster, tmp_path: Path) -> None:

    async with proxy_to(cluster.server.port) as proxy:
        server = f"https://127.0.0.1:{proxy.port}"
        path = kubeconfig(cluster, tmp_path / "config", {"token": cluster.server.token}, server=server)
        api = await asyncio.to_thread(connect, path, tmp_path)
        for _each in range(3):
            await asyncio.to_thread(api.get, NODES)
        assert proxy.accepted == 1
        proxy.cut()
        await asyncio.to_thread(api.get, NODES)
        assert proxy.accepted == 2
        await asyncio.to_thread(api.close)


def test_module_leaves_neither_secret_nor_file(cluster: Cluster, tmp_path: Path) -> None:
    pair = cluster.server.authority.issue("h-module", organization="system:masters")
    user = {
        "client-certificate-data": encoded(pair.certificate),
        "client-key-data": encoded(pair.key),
    }
    path = kubeconfig(cluster, tmp_path / "config", user)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    definition = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "h-module"}}
    arguments = {"definitions": [definition], "kubeconfig": str(path), "_ansible_tmpdir": str(scratch)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugins/modules/kube_apply.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{bundle.find() / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "collections"),
        },
    )
    assert json.loads(done.stdout)["created"] == ["Namespace h-module"]
    assert user["client-key-data"] not in done.stdout + done.stderr
    assert list(scratch.iterdir()) == []
