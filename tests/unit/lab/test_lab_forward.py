"""The record of a forwarder, and the process it names."""

import dataclasses
import json
import os
import socket
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import lab_forward
from ansible_collections.tortie.cluster.plugins.module_utils.lab_forward import Record
from lab.containers import forward

OWN = Record(
    pid=os.getpid(),
    start_time=forward.start_time(os.getpid()),
    port=6443,
    wanted=6443,
    target="10.30.200.1:6443",
    namespace_inode=1,
)


def test_record_of_a_living_process_is_running() -> None:
    assert lab_forward.is_running(OWN)


def test_pid_taken_by_a_later_process_is_not_running() -> None:
    assert not lab_forward.is_running(dataclasses.replace(OWN, start_time=OWN.start_time - 1))


def stat_line(command: str, state: str, start_time: int) -> str:
    """A line of proc(5)'s stat: fields 3 to 22, of which state and start time matter."""
    return f"7 ({command}) {state} " + " ".join(["0"] * 18) + f" {start_time} 0 0\n"


@pytest.mark.parametrize("command", ["forward", "a b", "a) Z 1 (b"])
def test_start_time_is_read_whatever_the_command_is_called(tmp_path: Path, command: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(stat_line(command, "S", 4711))
    assert lab_forward.process_start_time(7, tmp_path) == 4711


def test_zombie_counts_as_ended(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(stat_line("forward", "Z", 4711))
    assert lab_forward.process_start_time(7, tmp_path) is None


def test_missing_process_has_no_start_time(tmp_path: Path) -> None:
    assert lab_forward.process_start_time(7, tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"pid": 1}', json.dumps({**dataclasses.asdict(OWN), "more": 1})]
)
def test_damaged_record_is_no_record(text: str) -> None:
    assert lab_forward.parse_record(text) is None


def test_record_that_the_forwarder_writes_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    forward.write_record(path, dataclasses.asdict(OWN))
    assert lab_forward.read_record(path) == OWN


@pytest.mark.parametrize(
    ("target", "port", "inode"),
    [("10.30.200.9:6443", 6443, 1), ("10.30.200.1:6443", 7443, 1), ("10.30.200.1:6443", 6443, 2)],
)
def test_forwarder_that_does_something_else_does_not_serve(target: str, port: int, inode: int) -> None:
    assert lab_forward.serves(OWN, "10.30.200.1:6443", 6443, 1)
    assert not lab_forward.serves(OWN, target, port, inode)


def test_taken_port_gives_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with forward.listen(taken) as listener:
            assert listener.getsockname()[1] != taken


def test_free_port_is_used_as_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    with forward.listen(free) as listener:
        assert listener.getsockname()[1] == free


def test_target_is_address_and_port() -> None:
    assert forward.parse_target("10.30.200.1:6443") == forward.Target("10.30.200.1", 6443)


@pytest.mark.parametrize("text", ["10.30.200.1", ":6443", "10.30.200.1:https"])
def test_target_without_address_or_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address:port|invalid literal"):
        forward.parse_target(text)
