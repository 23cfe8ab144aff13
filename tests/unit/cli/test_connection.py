"""Which datastore the options, the environment and calicoctl's file lead to."""

from pathlib import Path

import pytest

from tortie.cli.connection import ConfigurationError, Connection, choose, connect, read_file
from tortie.datastore.interface import InvalidError

FILE = """\
apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
metadata:
spec:
"""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home directory without a kubeconfig."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("home")
def test_nothing_given_means_a_pods_own_cluster() -> None:
    assert choose(None, {}, {}) == Connection("kubernetes", None)


def test_kubeconfig_of_the_user_is_the_last_resort(home: Path) -> None:
    default = home / ".kube" / "config"
    default.parent.mkdir()
    default.touch()
    assert choose(None, {}, {}).kubeconfig == default
    assert choose(Path("mine"), {}, {"KUBECONFIG": "theirs"}).kubeconfig == Path("mine")
    assert choose(None, {"kubeconfig": "file"}, {"KUBECONFIG": "theirs"}).kubeconfig == Path("theirs")
    assert choose(None, {"kubeconfig": "file"}, {}).kubeconfig == Path("file")
    assert choose(None, {}, {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}).kubeconfig is None


def test_etcd_is_described_by_environment_over_file() -> None:
    environment = {
        "DATASTORE_TYPE": "etcdv3",
        "ETCD_ENDPOINTS": "https://a:2379, https://b:2379",
        "ETCD_CA_CERT_FILE": "/ca",
        "ETCD_CERT_FILE": "/cert",
        "ETCD_KEY_FILE": "/key",
    }
    file = {"etcdEndpoints": "http://other:2379", "etcdUsername": "u", "etcdPassword": "p"}
    connection = choose(None, file, environment)
    assert connection.backend == "etcdv3"
    assert connection.etcd == {
        "ETCD_ENDPOINTS": "https://a:2379, https://b:2379",
        "ETCD_CA_CERT_FILE": "/ca",
        "ETCD_CERT_FILE": "/cert",
        "ETCD_KEY_FILE": "/key",
        "ETCD_USERNAME": "u",
        "ETCD_PASSWORD": "p",
    }


def test_endpoints_alone_mean_etcd_but_not_against_a_kubeconfig() -> None:
    assert choose(None, {}, {"ETCD_ENDPOINTS": "http://a:2379"}).backend == "etcdv3"
    assert choose(Path("mine"), {}, {"ETCD_ENDPOINTS": "http://a:2379"}).backend == "kubernetes"


async def test_etcd_without_endpoints_is_an_error() -> None:
    with pytest.raises(InvalidError, match="ETCD_ENDPOINTS is not set"):
        await connect(choose(None, {}, {"DATASTORE_TYPE": "etcdv3"}))


def test_unknown_datastore_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="'zookeeper'; it must be kubernetes or etcdv3"):
        choose(None, {"datastoreType": "zookeeper"}, {})


def test_file_of_calicoctl_is_read(tmp_path: Path) -> None:
    path = tmp_path / "calicoctl.cfg"
    path.write_text(FILE + "  datastoreType: etcdv3\n  etcdEndpoints: http://a:2379\n")
    assert read_file(path) == {"datastoreType": "etcdv3", "etcdEndpoints": "http://a:2379"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE + "  k8sAPIEndpoint: https://a\n", "spec.k8sAPIEndpoint is not supported; put the server into"),
        (FILE + "  etcdEndpoint: http://a\n", "spec.etcdEndpoint is unknown; known are: datastoreType"),
        ("a: [", "is no YAML"),
        ("kind: Pod\n", "must have kind: CalicoAPIConfig"),
        ("- 1\n", "must have kind: CalicoAPIConfig"),
    ],
)
def test_file_that_would_mean_another_cluster_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "calicoctl.cfg"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_file(path)


def test_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_file(tmp_path / "none")
