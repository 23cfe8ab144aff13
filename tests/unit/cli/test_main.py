"""The command line without a cluster: usage, errors, exit status."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tortie import __version__
from tortie.cli.main import Settings, main


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No cluster in the environment; the value is the home directory."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_unknown_kind_fails_and_lists_the_known_ones() -> None:
    result = CliRunner().invoke(main, ["get", "pods"])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: unknown kind 'pods'; known are: nodes, ippools, blockaffinities, workloadendpoints\n"
    )
    assert result.stdout == ""


def test_unknown_output_format_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["get", "nodes", "-o", "xml"])
    assert result.exit_code == 2
    assert "'xml' is not one of 'ps', 'wide', 'yaml', 'json'" in result.stderr


def test_malformed_address_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["ipam", "show", "--ip", "10.5.0"])
    assert result.exit_code == 2
    assert "--ip" in result.stderr


@pytest.mark.usefixtures("outside")
def test_without_a_cluster_the_error_says_what_to_set() -> None:
    result = CliRunner().invoke(main, ["get", "nodes"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: KUBERNETES_SERVICE_HOST is not set")
    assert "KUBECONFIG" in result.stderr


def test_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--kubeconfig", str(tmp_path / "none"), "get", "nodes"])
    assert result.exit_code == 1
    assert f"{tmp_path / 'none'} cannot be read" in result.stderr


def test_node_status_without_bird_fails_and_names_the_socket(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["node", "status", "--bird-socket", str(tmp_path / "bird.ctl")])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Calico process is not running. BIRD does not answer on")
    assert str(tmp_path / "bird.ctl") in result.stderr


def test_client_version_needs_no_cluster() -> None:
    result = CliRunner().invoke(main, ["version", "--client"])
    assert (result.exit_code, result.stdout) == (0, f"Client Version:    {__version__}\n")


def test_kubeconfig_of_the_user_is_the_last_resort(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = outside / ".kube" / "config"
    assert Settings(None).effective_kubeconfig() is None
    default.parent.mkdir()
    default.touch()
    assert Settings(None).effective_kubeconfig() == default
    assert Settings(Path("mine")).effective_kubeconfig() == Path("mine")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert Settings(None).effective_kubeconfig() is None
