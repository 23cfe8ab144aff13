"""The CNI plugin's file: what it may use, and what it answers without an agent."""

import ast
import json
import socket
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.cni import shim

SOURCE = Path(shim.__file__)
BUILT_IN = {"_socket", "posix", "sys", "time"}  # in every CPython, without the os and site modules
CONFIG = b'{"cniVersion": "0.4.0", "name": "k8s-pod-network", "type": "calico"}'


def call(directory: Path, environment: dict[str, str], config: bytes = CONFIG) -> tuple[int, dict[str, Any]]:
    """Exit status and answer of the real file, run as the runtime runs it."""
    plugin = directory / "calico"
    plugin.write_bytes(SOURCE.read_bytes())
    plugin.chmod(0o755)
    paths = {
        "TORTIE_CNI_SOCKET": str(directory / "cni.sock"),
        "TORTIE_CNI_JOURNAL": str(directory / "journal"),
    }
    done = subprocess.run(
        [str(plugin)], input=config, capture_output=True, env=paths | environment, timeout=60, check=False
    )
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout or b"{}")


def test_its_syntax_is_that_of_python_3_6() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    # What feature_version lets pass: features of later versions that are names or evaluated annotations.
    arguments = [node for node in ast.walk(tree) if isinstance(node, ast.arg)]
    for annotation in [node.annotation for node in arguments]:
        assert not isinstance(annotation, ast.Subscript), (
            "evaluated in 3.6, where dict[str, bytes] is an error"
        )
    returns = [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not any(isinstance(node, ast.Subscript) for node in returns)
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


def test_it_imports_built_in_modules_only() -> None:
    tree = ast.parse(SOURCE.read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == BUILT_IN


def test_it_loads_no_module_beyond_those() -> None:
    def loaded(code: str) -> set[str]:
        command = ["/usr/bin/python3", "-IS", "-c", f"import sys; {code}; print(*sys.modules)"]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    body = f"exec(open({str(SOURCE)!r}).read().split('if __name__')[0])"
    assert loaded(body) - loaded("1") <= BUILT_IN | {"__main__"}


def test_its_first_line_isolates_the_interpreter() -> None:
    assert SOURCE.read_text().splitlines()[0] == "#!/usr/bin/python3 -IS"


@given(st.text())
def test_quoted_is_json(text: str) -> None:
    assert json.loads(shim.quoted(text)) == text


@pytest.mark.parametrize(
    ("config", "version"),
    [
        (b'{"cniVersion":"0.3.1"}', "0.3.1"),
        (b'{"name": "x", "cniVersion" : "0.4.0"}', "0.4.0"),
        (b'{"cniVersion":"9.9.9"}', "1.0.0"),
        (b'{"cniVersion":', "1.0.0"),
        (b"\xff\xfe", "1.0.0"),
        (b"", "1.0.0"),
    ],
)
def test_an_error_carries_the_callers_version_where_it_is_known(config: bytes, version: str) -> None:
    assert shim.version_of(config) == version


def test_version_is_answered_without_an_agent(tmp_path: Path) -> None:
    status, answer = call(tmp_path, {"CNI_COMMAND": "VERSION"})
    assert status == 0
    assert answer == {"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}


def test_an_unknown_command_is_refused_with_code_4_and_the_choices(tmp_path: Path) -> None:
    status, answer = call(tmp_path, {"CNI_COMMAND": "FROB"})
    assert (status, answer["code"], answer["cniVersion"]) == (1, 4, "0.4.0")
    assert answer["msg"] == "CNI_COMMAND is FROB; it must be one of ADD, DEL, CHECK, VERSION"


def test_all_missing_variables_are_named_at_once(tmp_path: Path) -> None:
    status, answer = call(tmp_path, {"CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0"})
    assert (status, answer["code"]) == (1, 4)
    assert "CNI_CONTAINERID and CNI_NETNS" in answer["msg"]
    assert "CNI_IFNAME" not in answer["msg"]


ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
DEL = ADD | {"CNI_COMMAND": "DEL"}


def test_a_namespace_that_is_gone_fails_add_with_code_4(tmp_path: Path) -> None:
    status, answer = call(tmp_path, ADD | {"CNI_NETNS": "/run/netns/gone"})
    assert (status, answer["code"]) == (1, 4)
    assert "CNI_NETNS is /run/netns/gone" in answer["msg"]


def test_add_without_an_agent_asks_to_try_again(tmp_path: Path) -> None:
    status, answer = call(tmp_path, ADD | {"CNI_NETNS": "/proc/self/ns/net"})
    assert (status, answer["code"]) == (1, 11)
    assert "does not answer on" in answer["msg"]
    assert "calico-node" in answer["msg"]


def test_del_without_an_agent_succeeds_and_is_kept_for_root_alone(tmp_path: Path) -> None:
    status, answer = call(tmp_path, DEL | {"CNI_NETNS": "/run/netns/gone"})
    assert (status, answer) == (0, {})
    (entry,) = (tmp_path / "journal").iterdir()
    assert entry.name == "c1.eth0.calico.del"
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    head, _, config = entry.read_bytes().partition(b"\0\0")
    assert config == CONFIG
    assert b"CNI_COMMAND=DEL" in head.split(b"\0")
    assert b"CNI_TYPE=calico" in head.split(b"\0")


def test_del_that_can_neither_be_served_nor_kept_fails(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where the directory should be")
    status, answer = call(tmp_path, DEL)
    assert (status, answer["code"]) == (1, 11)
    assert "cannot be kept" in answer["msg"]


def hang_up_after_reading(path: Path) -> threading.Thread:
    """A listener that takes one request and closes without an answer, as an agent that is killed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1 << 16)
        connection.close()
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_an_agent_that_dies_in_the_middle_makes_add_try_again(tmp_path: Path) -> None:
    thread = hang_up_after_reading(tmp_path / "cni.sock")
    status, answer = call(tmp_path, ADD | {"CNI_NETNS": "/proc/self/ns/net"})
    thread.join()
    assert (status, answer["code"]) == (1, 11)
    assert "without an answer" in answer["msg"]


def test_an_agent_that_dies_in_the_middle_makes_del_wait_in_the_journal(tmp_path: Path) -> None:
    thread = hang_up_after_reading(tmp_path / "cni.sock")
    assert call(tmp_path, DEL) == (0, {})
    thread.join()
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["c1.eth0.calico.del"]


def test_too_large_a_configuration_is_refused(tmp_path: Path) -> None:
    status, answer = call(tmp_path, {"CNI_COMMAND": "VERSION"}, b" " * (shim.MAX_REQUEST + 70000))
    assert (status, answer["code"]) == (1, 7)
