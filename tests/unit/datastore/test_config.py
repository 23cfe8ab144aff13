import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components.certificates import Authority
from tortie.datastore.config import Token, from_kubeconfig, in_cluster
from tortie.datastore.interface import InvalidError


def kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any], **changes: Any) -> Path:
    config = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
        "current-context": "x",
        "preferences": {},
    }
    path.write_text(yaml.safe_dump(config | changes))
    return path


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_token_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    token = Token(path=path)
    assert token.header() == {"Authorization": "Bearer one"}
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").rename(path)
    assert token.header() == {"Authorization": "Bearer two"}


def test_token_file_is_found_again_through_kubelets_symbolic_link(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    token = Token(path=tmp_path / "token")
    assert token.header() == {"Authorization": "Bearer one"}
    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert token.header() == {"Authorization": "Bearer two"}


def test_last_token_is_kept_while_its_file_is_away(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    token = Token(path=path)
    token.header()
    path.unlink()
    assert token.header() == {"Authorization": "Bearer one"}


def test_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"/token cannot be read"):
        Token(path=tmp_path / "token").header()


def test_no_token_means_no_header() -> None:
    assert Token().header() == {}


@pytest.mark.parametrize(
    ("host", "port", "server"),
    [("10.96.0.1", "443", "https://10.96.0.1:443"), ("fd00::1", "6443", "https://[fd00::1]:6443")],
)
def test_in_cluster_configuration(tmp_path: Path, host: str, port: str, server: str) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "token").write_text("secret")
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    config = in_cluster(environment, tmp_path)
    assert config.server == server
    assert config.token.header() == {"Authorization": "Bearer secret"}
    assert config.tls is not None
    assert len(config.tls.get_ca_certs()) == 1
    assert authority.certificate == tmp_path / "ca.crt"


def test_outside_a_pod_the_missing_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"KUBERNETES_SERVICE_HOST is not set"):
        in_cluster({}, tmp_path)


def test_missing_authority_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"ca\.crt"):
        in_cluster({"KUBERNETES_SERVICE_HOST": "h"}, tmp_path)


def test_kubeconfig_with_files(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client")
    path = kubeconfig(
        tmp_path / "config",
        {"server": "https://h:6443/", "certificate-authority": "ca.crt"},
        {"client-certificate": client.certificate.name, "client-key": str(client.key)},
    )
    config = from_kubeconfig(path)
    assert config.server == "https://h:6443"
    assert config.tls is not None
    assert len(config.tls.get_ca_certs()) == 1
    assert config.token.header() == {}


def test_kubeconfig_with_data_leaves_no_key_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", os.fspath(scratch))
    path = kubeconfig(
        tmp_path / "config",
        {"server": "https://h", "certificate-authority-data": encoded(authority.certificate)},
        {"client-certificate-data": encoded(client.certificate), "client-key-data": encoded(client.key)},
    )
    assert from_kubeconfig(path).tls is not None
    assert list(scratch.iterdir()) == []


def test_kubeconfig_with_a_token_or_a_token_file(tmp_path: Path) -> None:
    server = {"server": "http://h"}
    config = from_kubeconfig(kubeconfig(tmp_path / "a", server, {"token": "t"}))
    assert config.token.header() == {"Authorization": "Bearer t"}
    assert config.tls is None
    (tmp_path / "tok").write_text("f")
    config = from_kubeconfig(kubeconfig(tmp_path / "b", server, {"tokenFile": "tok"}))
    assert config.token.header() == {"Authorization": "Bearer f"}


@pytest.mark.parametrize(
    ("cluster", "user", "changes", "message"),
    [
        ({"server": "http://h"}, {"exec": {"command": "x"}}, {}, "user u authenticates by exec"),
        ({"server": "http://h"}, {"username": "x"}, {}, "password"),
        ({"server": "http://h"}, {}, {"current-context": "y"}, "current-context is 'y'.*defines: x"),
        ({"server": "http://h"}, {}, {"users": []}, "user is 'u'.*defines: none"),
        ({}, {}, {}, "server"),
        ({"server": "https://h", "certificate-authority-data": "%"}, {}, {}, "ca-data is not base64"),
        ({"server": "https://h", "certificate-authority-data": "eA=="}, {}, {}, "cannot be loaded"),
        ({"server": "https://h", "certificate-authority": "gone"}, {}, {}, "gone"),
    ],
)
def test_unusable_kubeconfig_is_refused_with_the_reason(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidError, match=message):
        from_kubeconfig(kubeconfig(tmp_path / "config", cluster, user, **changes))


def test_kubeconfig_that_is_absent_or_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="cannot be read"):
        from_kubeconfig(tmp_path / "absent")
    (tmp_path / "config").write_text("{")
    with pytest.raises(InvalidError, match="is no kubeconfig"):
        from_kubeconfig(tmp_path / "config")
