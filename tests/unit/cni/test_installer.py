"""What the init container puts on the host."""

import asyncio
import base64
import json
import stat
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tortie.cni import installer
from tortie.cni.installer import InstallError, Settings
from tortie.datastore.interface import ForbiddenError

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    """Settings whose every path is in a temporary directory."""
    account, plugins = tmp_path / "account", tmp_path / "plugins"
    account.mkdir()
    plugins.mkdir()
    for name in installer.PLUGINS:
        (plugins / name).write_text(f"binary {name}")
    for name, text in (("ca.crt", "certificate"), ("namespace", "kube-system"), ("token", "own-token")):
        (account / name).write_text(text)
    return Settings(
        bin_dir=tmp_path / "bin",
        net_dir=tmp_path / "net.d",
        node="master-01",
        api_server="https://10.96.0.1:443",
        account_dir=account,
        plugins_dir=plugins,
        shim=installer.FAST_SHIM,
    )


class Tokens:
    """Issues a token that tells for whom, or refuses."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal

    async def create_token(self, namespace: str, service_account: str, seconds: int) -> tuple[str, datetime]:
        if self.refusal:
            raise self.refusal
        return f"{namespace}/{service_account}", NOW + timedelta(seconds=seconds)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_plugin_is_installed_executable_and_the_shim_under_both_names(chosen: Settings) -> None:
    assert installer.install_binaries(chosen) == [*installer.SHIM_NAMES, *installer.PLUGINS]
    for name in installer.SHIM_NAMES:
        assert (chosen.bin_dir / name).read_bytes() == installer.FAST_SHIM.read_bytes()
    assert (chosen.bin_dir / "portmap").read_text() == "binary portmap"
    assert {mode(path) for path in chosen.bin_dir.iterdir()} == {0o755}
    assert len(list(chosen.bin_dir.iterdir())) == 6


def test_a_second_installation_writes_nothing(chosen: Settings) -> None:
    installer.install_binaries(chosen)
    before = {path: path.stat().st_ino for path in chosen.bin_dir.iterdir()}
    assert installer.install_binaries(chosen) == []
    assert {path: path.stat().st_ino for path in chosen.bin_dir.iterdir()} == before


def test_a_changed_plugin_is_replaced_as_a_whole_unless_updates_are_off(chosen: Settings) -> None:
    installer.install_binaries(chosen)
    old = chosen.bin_dir / "calico"
    old.write_text("tampered")
    assert installer.install_binaries(replace(chosen, update_binaries=False)) == []
    inode = old.stat().st_ino
    assert installer.install_binaries(chosen) == ["calico"]
    assert old.stat().st_ino != inode  # a rename: a runtime that executes the old file is not disturbed


def test_skipped_plugins_are_left_out(chosen: Settings) -> None:
    skipping = replace(chosen, skip_binaries=frozenset({"portmap", "loopback"}))
    assert "portmap" not in installer.install_binaries(skipping)
    assert not (chosen.bin_dir / "loopback").exists()


def test_a_plugin_that_the_image_lacks_is_named(chosen: Settings) -> None:
    (chosen.plugins_dir / "portmap").unlink()
    with pytest.raises(InstallError, match=r"portmap.*SKIP_CNI_BINARIES"):
        installer.install_binaries(chosen)


def test_the_default_configuration_chains_calico_and_portmap(chosen: Settings) -> None:
    config = json.loads(installer.render_config(replace(chosen, mtu=1440)))
    assert (config["name"], config["cniVersion"]) == ("k8s-pod-network", "1.0.0")
    calico, portmap = config["plugins"]
    assert calico["type"] == "calico"
    assert calico["mtu"] == 1440
    assert calico["nodename"] == "master-01"
    assert calico["ipam"] == {"type": "calico-ipam"}
    assert calico["kubernetes"]["kubeconfig"] == "/etc/cni/net.d/calico-kubeconfig"
    assert portmap == {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    assert b"__" not in installer.render_config(chosen)


def test_a_configuration_of_ones_own_gets_its_placeholders_filled(chosen: Settings) -> None:
    text = '{"mtu": __CNI_MTU__, "n": "__KUBERNETES_NODE_NAME__", "l": "__LOG_LEVEL__"}'
    config = json.loads(installer.render_config(replace(chosen, config_template=text)))
    assert config == {"mtu": 0, "n": "master-01", "l": "info"}
    with pytest.raises(InstallError, match="CNI_NETWORK_CONFIG is not JSON"):
        installer.render_config(replace(chosen, config_template="{mtu: 1}"))


async def test_the_kubeconfig_has_a_token_of_the_cni_account_and_is_for_root_alone(chosen: Settings) -> None:
    expires = await installer.renew_once(chosen, Tokens())
    assert expires == NOW + timedelta(hours=24)
    config = json.loads(chosen.kubeconfig.read_text())
    assert config["users"][0]["user"]["token"] == "kube-system/calico-cni-plugin"
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://10.96.0.1:443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"certificate"
    assert mode(chosen.kubeconfig) == 0o600


async def test_without_permission_for_tokens_the_pods_own_is_used(chosen: Settings) -> None:
    assert await installer.renew_once(chosen, Tokens(ForbiddenError("no"))) is None
    config = json.loads(chosen.kubeconfig.read_text())
    assert config["users"][0]["user"]["token"] == "own-token"


async def test_without_any_token_the_missing_file_is_named(chosen: Settings) -> None:
    (chosen.account_dir / "token").unlink()
    with pytest.raises(InstallError, match="account/token"):
        await installer.renew_once(chosen, Tokens(ForbiddenError("no")))


def test_outside_a_cluster_the_missing_variable_is_named(chosen: Settings) -> None:
    with pytest.raises(InstallError, match="KUBERNETES_SERVICE_HOST is not set"):
        installer.render_kubeconfig(replace(chosen, api_server=""), "token")


def test_renewal_comes_between_a_quarter_and_half_of_what_remains() -> None:
    expires = NOW + timedelta(hours=24)
    assert installer.renewal_delay(NOW, expires, 0.0) == 6 * 3600
    assert installer.renewal_delay(NOW, expires, 1.0) == 12 * 3600
    assert installer.renewal_delay(NOW, NOW - timedelta(hours=1), 0.5) == installer.MIN_RENEWAL_SECONDS


@pytest.mark.parametrize("days", [-400, -1, 0, 1, 400])
def test_renewal_is_neither_missed_nor_restless_when_the_nodes_clock_is_off(days: int) -> None:
    expires = NOW + timedelta(seconds=installer.TOKEN_SECONDS)
    for chance in (0.0, 0.999):
        delay = installer.renewal_delay(NOW + timedelta(days=days), expires, chance)
        assert installer.MIN_RENEWAL_SECONDS <= delay <= installer.TOKEN_SECONDS / 2


async def test_renewal_ends_at_once_where_the_cni_is_not_managed(chosen: Settings) -> None:
    await installer.renew_loop(replace(chosen, manage=False), Tokens())
    assert not chosen.kubeconfig.exists()


def test_settings_come_from_the_environment() -> None:
    found = installer.settings(
        {
            "CNI_MTU": "1440",
            "CNI_CONF_NAME": "05-mine.conflist",
            "SKIP_CNI_BINARIES": "portmap, bandwidth",
            "UPDATE_CNI_BINARIES": "false",
            "KUBERNETES_SERVICE_HOST": "fd00::1",
            "KUBERNETES_SERVICE_PORT": "6443",
            "NODENAME": "worker-01",
            "CALICO_MANAGE_CNI": "no",
        }
    )
    assert (found.mtu, found.config_name, found.node) == (1440, "05-mine.conflist", "worker-01")
    assert found.skip_binaries == {"portmap", "bandwidth"}
    assert (found.update_binaries, found.manage) == (False, False)
    assert found.api_server == "https://[fd00::1]:6443"
    assert installer.settings({}) == Settings()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CNI_MTU": "auto"}, "CNI_MTU is 'auto'"),
        ({"CNI_CONF_NAME": "../x.conflist"}, "CNI_CONF_NAME"),
        ({"CNI_CONF_NAME": "x.txt"}, "CNI_CONF_NAME"),
        ({"CNI_NETWORK_CONFIG_FILE": "/nowhere"}, "CNI_NETWORK_CONFIG_FILE is /nowhere"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(environment: dict[str, str], words: str) -> None:
    with pytest.raises(InstallError, match=words):
        installer.settings(environment)


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert installer.write_atomically(path, b"one", 0o600)
    assert not installer.write_atomically(path, b"one", 0o600)
    assert installer.write_atomically(path, b"one", 0o644)
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "plain").write_text("")
    with pytest.raises(InstallError, match="cannot write"):
        installer.write_atomically(tmp_path / "plain" / "file", b"x", 0o600)


def test_the_shim_is_the_fastest_that_the_host_can_execute(tmp_path: Path) -> None:
    programs = tmp_path / "usr/bin"
    programs.mkdir(parents=True)
    with pytest.raises(InstallError, match="neither /usr/bin/perl nor /usr/bin/python3"):
        installer.best_shim(tmp_path)
    (programs / "python3").symlink_to("/etc/alternatives/python3-of-the-host")
    assert installer.best_shim(tmp_path) == installer.PORTABLE_SHIM
    (programs / "perl").touch()
    assert installer.best_shim(tmp_path) == installer.FAST_SHIM


def test_without_a_view_of_the_host_the_portable_shim_is_installed(tmp_path: Path) -> None:
    assert installer.best_shim(Path("/")) == installer.PORTABLE_SHIM
    assert installer.best_shim(tmp_path / "absent") == installer.PORTABLE_SHIM


def test_the_fast_shim_is_part_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    files = project["tool"]["setuptools"]["package-data"]["tortie"]
    assert f"cni/{installer.FAST_SHIM.name}" in files
    assert installer.FAST_SHIM.is_file()


class Counting(Tokens):
    """Counts what it issues."""

    issued = 0

    async def create_token(self, namespace: str, service_account: str, seconds: int) -> tuple[str, datetime]:
        self.issued += 1
        return f"token-{self.issued}", datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_new_token_of_the_pods_own_renews_the_kubeconfig_at_once(chosen: Settings) -> None:
    """kubelet replaces it, through a link, when the signing key changes."""
    source = Counting()
    renewing = asyncio.create_task(installer.renew_loop(chosen, source, poll_seconds=0.01))
    try:
        for count in (1, 2, 3):
            for _ in range(3000):
                if source.issued == count and f"token-{count}" in chosen.kubeconfig.read_text():
                    break
                await asyncio.sleep(0.01)
            else:
                pytest.fail("the kubeconfig was not renewed within 30 seconds")
            assert mode(chosen.kubeconfig) == 0o600
            draft = chosen.account_dir / "draft"
            draft.write_text(f"own-token-{count}")
            draft.rename(chosen.account_dir / "token")
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
