"""The CNI plugin's file: what it may use, and what it answers without an agent."""

import ast
import json
import re
import socket
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.cni import config as request
from tortie.cni import installer, shim

SOURCE = Path(shim.__file__)
BUILT_IN = {"_socket", "posix", "sys", "time"}  # in every CPython, without the os and site modules
CONFIG = b'{"cniVersion": "0.4.0", "name": "k8s-pod-network", "type": "calico"}'


@pytest.fixture(params=[installer.FAST_SHIM, installer.PORTABLE_SHIM], ids=["perl", "python"])
def source(request: pytest.FixtureRequest) -> Path:
    """One of the two shims, which behave the same."""
    return Path(request.param)


def call(
    directory: Path, source: Path, environment: dict[str, str], config: bytes = CONFIG
) -> tuple[int, dict[str, Any]]:
    """Exit status and answer of the real file, run as the runtime runs it."""
    plugin = directory / "calico"
    plugin.write_bytes(source.read_bytes())
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


def test_both_speak_the_same_versions_and_commands() -> None:
    text = installer.FAST_SHIM.read_text()
    assert f"my @VERSIONS = qw({' '.join(shim.VERSIONS)});" in text
    assert f"my @COMMANDS = qw({' '.join(shim.REQUIRED)});" in text
    for command, names in shim.REQUIRED.items():
        assert f"{command} => [{f'qw({chr(32).join(names)})' if names else ''}]," in re.sub(
            " +=>", " =>", text
        )
    for name in ("CONNECT_SECONDS", "ANSWER_SECONDS"):
        assert re.search(rf"my \${name} += {getattr(shim, name):g};", text), name
    assert f"my $MAX_REQUEST     = 1 << {shim.MAX_REQUEST.bit_length() - 1};" in text


def test_the_perl_one_loads_nothing_and_all_of_it_is_strict() -> None:
    often, _, rarely = installer.FAST_SHIM.read_text().partition("\n__END__\n")
    assert not re.findall(r"^use ", often + rarely, re.MULTILINE)
    assert rarely
    for text in (often, often + rarely):
        checked = subprocess.run(
            ["perl", "-Mstrict", "-c", "-"], input=text, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
    code = "do shift; END { print STDERR join ' ', sort keys %INC }"
    done = subprocess.run(
        ["/usr/bin/perl", "-e", code, str(installer.FAST_SHIM)],
        env={"CNI_COMMAND": "VERSION"},
        input=CONFIG,
        capture_output=True,
        check=True,
    )
    assert done.stderr.decode().split() == sorted([str(installer.FAST_SHIM), "strict.pm"])


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
        (b'{"cniVersion":"9.9.9"}', "1.1.0"),
        (b'{"cniVersion":', "1.1.0"),
        (b"\xff\xfe", "1.1.0"),
        (b"", "1.1.0"),
    ],
)
def test_an_error_carries_the_callers_version_where_it_is_known(config: bytes, version: str) -> None:
    assert shim.version_of(config) == version


def test_version_is_answered_without_an_agent(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, {"CNI_COMMAND": "VERSION"})
    assert status == 0
    assert answer == {"cniVersion": "0.4.0", "supportedVersions": list(shim.VERSIONS)}


def test_an_unknown_command_is_refused_with_code_4_and_the_choices(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, {"CNI_COMMAND": "FROB"})
    assert (status, answer["code"], answer["cniVersion"]) == (1, 4, "0.4.0")
    assert answer["msg"] == "CNI_COMMAND is FROB; it must be one of ADD, DEL, CHECK, STATUS, GC, VERSION"


def test_all_missing_variables_are_named_at_once(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, {"CNI_COMMAND": "ADD", "CNI_IFNAME": "eth0"})
    assert (status, answer["code"]) == (1, 4)
    assert "CNI_CONTAINERID and CNI_NETNS" in answer["msg"]
    assert "CNI_IFNAME" not in answer["msg"]


ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
DEL = ADD | {"CNI_COMMAND": "DEL"}


def test_a_namespace_that_is_gone_fails_add_with_code_4(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, ADD | {"CNI_NETNS": "/run/netns/gone"})
    assert (status, answer["code"]) == (1, 4)
    assert "CNI_NETNS is /run/netns/gone" in answer["msg"]


def test_add_without_an_agent_asks_to_try_again(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, ADD | {"CNI_NETNS": "/proc/self/ns/net"})
    assert (status, answer["code"]) == (1, 11)
    assert "does not answer on" in answer["msg"]
    assert "calico-node" in answer["msg"]


def test_del_without_an_agent_succeeds_and_is_kept_for_root_alone(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, DEL | {"CNI_NETNS": "/run/netns/gone"})
    assert (status, answer) == (0, {})
    (entry,) = (tmp_path / "journal").iterdir()
    assert entry.name == "c1.eth0.calico.del"
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    head, _, config = entry.read_bytes().partition(b"\0\0")
    assert config == CONFIG
    assert b"CNI_COMMAND=DEL" in head.split(b"\0")
    assert b"CNI_TYPE=calico" in head.split(b"\0")


def test_del_that_can_neither_be_served_nor_kept_fails(tmp_path: Path, source: Path) -> None:
    (tmp_path / "journal").write_text("a file where the directory should be")
    status, answer = call(tmp_path, source, DEL)
    assert (status, answer["code"]) == (1, 11)
    assert "cannot be kept" in answer["msg"]


def answer_with(path: Path, answer: bytes = b"", requests: list[bytes] | None = None) -> threading.Thread:
    """A listener that takes one request, keeps it in `requests`, and answers; nothing, as if killed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            request = stream.read(int.from_bytes(stream.read(4), "big"))
            if requests is not None:
                requests.append(request)
            connection.sendall(answer)
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("config", [CONFIG, b"", b"\0\xff", CONFIG + b" " * 200_000])
def test_the_request_is_passed_on_verbatim_and_the_answer_too(
    tmp_path: Path, source: Path, config: bytes
) -> None:
    requests: list[bytes] = []
    answer = json.dumps({"text": "x" * 300_000}).encode()
    thread = answer_with(tmp_path / "cni.sock", b"\x00" + answer, requests)
    variables = ADD | {"CNI_NETNS": "/proc/self/ns/net", "CNI_ARGS": "A=\udcff;B=ü", "CNI_PATH": "/bin"}
    status, received = call(tmp_path, source, variables | {"OTHER": "not passed"}, config)
    thread.join()
    assert (status, received) == (0, json.loads(answer))
    environment, text = request.decode(requests[0])
    environment.pop("CNI_NETNS_FD", None)
    assert environment == variables | {"CNI_TYPE": "calico"}
    assert text == config


@pytest.mark.parametrize("status", [0, 1])
def test_the_agents_status_is_the_exit_status(tmp_path: Path, source: Path, status: int) -> None:
    thread = answer_with(tmp_path / "cni.sock", bytes([status]))
    assert call(tmp_path, source, DEL) == (status, {})
    thread.join()


def test_status_without_an_agent_says_that_the_plugin_is_not_available(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, {"CNI_COMMAND": "STATUS"})
    assert (status, answer["code"]) == (1, 50)


def test_gc_without_an_agent_asks_to_try_again(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, {"CNI_COMMAND": "GC"})
    assert (status, answer["code"]) == (1, 11)


@pytest.mark.parametrize(
    "text", ["naïve", "\udcff\udcfe", "\U0001f98a", 'quote" back\\slash', "tab\there\x7f"]
)
def test_what_is_strange_in_the_environment_is_quoted_as_json(
    tmp_path: Path, source: Path, text: str
) -> None:
    status, answer = call(tmp_path, source, {"CNI_COMMAND": text})
    assert (status, answer["code"]) == (1, 4)
    assert answer["msg"].startswith("CNI_COMMAND is ")
    if "\udcff" not in text:
        assert f"CNI_COMMAND is {text};" in answer["msg"]


def test_an_agent_that_dies_in_the_middle_makes_add_try_again(tmp_path: Path, source: Path) -> None:
    thread = answer_with(tmp_path / "cni.sock")
    status, answer = call(tmp_path, source, ADD | {"CNI_NETNS": "/proc/self/ns/net"})
    thread.join()
    assert (status, answer["code"]) == (1, 11)
    assert "without an answer" in answer["msg"]


def test_an_agent_that_dies_in_the_middle_makes_del_wait_in_the_journal(tmp_path: Path, source: Path) -> None:
    thread = answer_with(tmp_path / "cni.sock")
    assert call(tmp_path, source, DEL) == (0, {})
    thread.join()
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["c1.eth0.calico.del"]


def test_too_large_a_configuration_is_refused(tmp_path: Path, source: Path) -> None:
    status, answer = call(tmp_path, source, {"CNI_COMMAND": "VERSION"}, b" " * (shim.MAX_REQUEST + 70000))
    assert (status, answer["code"]) == (1, 7)
