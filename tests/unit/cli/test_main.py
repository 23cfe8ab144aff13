"""The command line without a cluster: usage, errors, exit status."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tortie import __version__
from tortie.cli.main import main


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No cluster in the environment; the value is the home directory."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_unknown_kind_fails_and_the_known_ones_are_listed() -> None:
    result = CliRunner().invoke(main, ["get", "pods"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: unknown kind 'pods'; known are: bgpconfigurations, bgpfilters, ")
    assert result.stdout == ""


def test_unknown_output_format_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["get", "nodes", "-o", "xml"])
    assert result.exit_code == 2
    assert "'xml' is no output format; choose from ps, wide, yaml, json, custom-columns=" in result.stderr


def test_go_templates_are_refused_with_what_to_use_instead() -> None:
    for form in ("go-template={{.}}", "go-template-file=x"):
        result = CliRunner().invoke(main, ["get", "nodes", "-o", form])
        assert result.exit_code == 2
        assert "is not supported, because its language is Go's own; use -o json" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get"], "either a KIND or files"),
        (["get", "nodes", "-f", "x"], "either a KIND or files"),
        (["delete", "nodes"], "at least one NAME"),
        (["delete"], "at least one NAME"),
        (["create"], "Missing option '-f'"),
        (["label", "node", "n", "key"], "KEY=VALUE, or KEY and --remove"),
        (["label", "node", "n", "key=1", "--remove"], "KEY=VALUE, or KEY and --remove"),
        (["patch", "node", "n"], "Missing option '-p'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_incomplete_command_is_a_usage_error(words: list[str], message: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["get", "nodes", "-n", "shop"], "Node is not namespaced"),
        (["get", "np", "-A", "-n", "shop"], "-n and -A exclude each other"),
        (["get", "np", "x", "-A"], "say the namespace with -n"),
        (["delete", "ippool", "x", "-n", "shop"], "IPPool is not namespaced"),
        (["patch", "ippool", "x", "-p", "[]"], "the patch must be one mapping"),
        (["patch", "ippool", "x", "-t", "json", "-p", "{}"], "must be a list of operations"),
        (["patch", "ippool", "x", "-p", "a: b: c"], "the patch, line 1, is no YAML"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_contradiction_is_an_error_before_anything_is_sent(words: list[str], message: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert message in result.stderr


def test_global_options_may_follow_the_command(tmp_path: Path) -> None:
    missing = tmp_path / "none.cfg"
    for words in (
        ["get", "nodes", "--allow-version-mismatch", f"--config={missing}"],
        ["get", "nodes", "-c", str(missing), "-l", "debug"],
        ["--config", str(missing), "get", "nodes"],
    ):
        result = CliRunner().invoke(main, words)
        assert (result.exit_code, result.stderr) == (
            1,
            f"Error: The configuration file {missing} does not exist.\n",
        )


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
