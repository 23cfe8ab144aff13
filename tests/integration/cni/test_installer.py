"""The installer against a real API server."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from tests.components.apiserver import ApiServer
from tortie.cni import installer
from tortie.cni.installer import Settings
from tortie.datastore.interface import ForbiddenError
from tortie.datastore.kubernetes import connect
from tortie.model.resources import Node

pytestmark = pytest.mark.root  # the API server's binaries come with the bundle, which root builds


@pytest.fixture
def chosen(tmp_path: Path, apiserver: ApiServer) -> Settings:
    """As in a pod of the cluster, with the host's directories in a temporary one."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "ca.crt").write_bytes(apiserver.ca.read_bytes())
    (account / "namespace").write_text("kube-system")
    (account / "token").write_text("own-token")
    return Settings(
        bin_dir=tmp_path / "bin",
        net_dir=tmp_path / "net.d",
        node="master-01",
        api_server=apiserver.url,
        account_dir=account,
        service_account="tortie-test-cni",
    )


async def test_an_installation_gives_a_working_kubeconfig_and_the_chained_plugins(
    chosen: Settings, apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    path = "/api/v1/namespaces/kube-system/serviceaccounts"
    body = {"metadata": {"name": chosen.service_account}}
    await asyncio.to_thread(apiserver.request, "POST", path, body)
    try:
        await installer.install(chosen)
        files = {item.name: stat.S_IMODE(item.stat().st_mode) for item in chosen.net_dir.iterdir()}
        assert files == {"10-calico.conflist": 0o600, "calico-kubeconfig": 0o600}
        plugins = json.loads((chosen.net_dir / "10-calico.conflist").read_text())["plugins"]
        assert {plugin["type"] for plugin in plugins} <= {item.name for item in chosen.bin_dir.iterdir()}
        async with await connect(chosen.kubeconfig) as client:
            # Known to the API server, and without rights of its own here.
            with pytest.raises(ForbiddenError, match="system:serviceaccount:kube-system:tortie-test-cni"):
                await client.list(Node)
    finally:
        await asyncio.to_thread(apiserver.request, "DELETE", f"{path}/{chosen.service_account}")


async def test_a_service_account_that_does_not_exist_leaves_the_pods_own_token(
    chosen: Settings, apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    await installer.install(chosen)
    users = json.loads(chosen.kubeconfig.read_text())["users"]
    assert users[0]["user"]["token"] == "own-token"
