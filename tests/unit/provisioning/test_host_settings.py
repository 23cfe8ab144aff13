"""What is planned for a machine, and that carrying it out leaves nothing to plan. The machine is a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import host, host_settings, managed_files
from ansible_collections.tortie.cluster.plugins.module_utils.host_settings import HostSettingsError, Wanted
from hypothesis import given
from hypothesis import strategies as st

FSTAB = "# /etc/fstab\nUUID=1 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\n# /dev/sdb none swap sw 0 0\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system with two kernel settings, and every kernel module present."""
    for name, value in {"net/ipv4/ip_forward": "0", "net/ipv4/tcp_rmem": "4096\t131072\t6291456"}.items():
        path = tmp_path / "proc/sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "etc/fstab").write_text(FSTAB)
    monkeypatch.setattr(host, "feature_state", lambda _name: "present")
    return tmp_path


def wanted(
    root: Path,
    sysctls: Mapping[str, str] | None = None,
    hosts: Sequence[tuple[str, str]] | None = (("10.30.200.1", "master-01"),),
    swap_off: bool = True,
) -> Wanted:
    """What a node needs, on a machine that is a folder."""
    return Wanted(
        modules=["overlay"],
        sysctls={"net.ipv4.ip_forward": "1"} if sysctls is None else sysctls,
        links=["cali*", "tunl*", "vxlan.calico"],
        hosts=hosts,
        swap_off=swap_off,
        root=str(root),
    )


def text(root: Path, path: str) -> str:
    return (root / path.lstrip("/")).read_text()


def test_second_plan_is_empty(machine: Path) -> None:
    first = host_settings.plan(wanted(machine), network_manager=True, networkd=True)
    assert first
    host_settings.carry_out(first, str(machine))
    assert not host_settings.plan(wanted(machine), network_manager=True, networkd=True)


def test_planning_changes_nothing(machine: Path) -> None:
    before = {path: path.read_bytes() for path in machine.rglob("*") if path.is_file()}
    host_settings.plan(wanted(machine), network_manager=True, networkd=True)
    assert {path: path.read_bytes() for path in machine.rglob("*") if path.is_file()} == before


def test_setting_is_written_live_and_for_the_next_boot(machine: Path) -> None:
    host_settings.carry_out(host_settings.plan(wanted(machine), False, False), str(machine))
    assert text(machine, "/proc/sys/net/ipv4/ip_forward") == "1\n"
    assert "net.ipv4.ip_forward = 1\n" in text(machine, host_settings.SYSCTL_FILE)


def test_live_value_that_is_right_is_not_written(machine: Path) -> None:
    todo = host_settings.plan(wanted(machine, {"net.ipv4.tcp_rmem": "4096 131072 6291456"}), False, False)
    assert todo.sysctls == {}


def test_setting_that_the_kernel_lacks_is_an_error_with_its_name(machine: Path) -> None:
    todo = host_settings.plan(wanted(machine, {"net.bridge.absent": "1"}), False, False)
    with pytest.raises(HostSettingsError, match=r"net\.bridge\.absent cannot be set to 1"):
        host_settings.carry_out(todo, str(machine))


def test_module_that_is_absent_is_planned(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "feature_state", lambda _name: "loadable")
    assert host_settings.plan(wanted(machine), False, False).modules == ["overlay"]


def test_swap_lines_become_comments_and_nothing_else_does(machine: Path) -> None:
    host_settings.carry_out(host_settings.plan(wanted(machine), False, False), str(machine))
    lines = text(machine, host_settings.FSTAB).splitlines()
    assert lines[2] == f"{managed_files.SWAP_MARK}/dev/sda2 none swap sw 0 0"
    assert [lines[index] for index in (0, 1, 3)] == [FSTAB.splitlines()[index] for index in (0, 1, 3)]


def test_swap_that_is_not_ours_stays(machine: Path) -> None:
    (machine / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100\n")
    todo = host_settings.plan(wanted(machine, swap_off=False), False, False)
    assert todo.swaps == []
    assert host_settings.FSTAB not in {change.path for change in todo.files}
    assert host_settings.plan(wanted(machine), False, False).swaps == ["/dev/zram0"]


def test_network_services_are_told_only_where_they_run(machine: Path) -> None:
    neither = host_settings.plan(wanted(machine), network_manager=False, networkd=False)
    assert neither.services() == []
    bodies = host_settings.file_bodies(wanted(machine), network_manager=True, networkd=True)
    assert (
        "interface-name:cali*;interface-name:tunl*;interface-name:vxlan.calico"
        in bodies[host_settings.NETWORK_MANAGER_FILE]
    )
    assert "Name=cali* tunl* vxlan.calico" in bodies[host_settings.NETWORKD_LINKS_FILE]
    assert "ManageForeignRoutes=no" in bodies[host_settings.NETWORKD_FILE]


def test_hosts_file_is_left_alone_when_nobody_asks(machine: Path) -> None:
    host_settings.carry_out(host_settings.plan(wanted(machine, hosts=None), False, False), str(machine))
    assert text(machine, "/etc/hosts") == "127.0.0.1 localhost\n"


def test_dotted_node_name_gets_its_first_label_as_alias() -> None:
    assert host_settings.hosts_lines([("10.0.0.1", "a.example.org"), ("10.0.0.2", "b")]) == [
        "10.0.0.1 a.example.org a",
        "10.0.0.2 b",
    ]


def test_diff_shows_every_change(machine: Path) -> None:
    diff = host_settings.plan(wanted(machine), False, False).diff()
    shown = {item["after_header"] for item in diff}
    assert any(name.endswith("/etc/hosts") for name in shown)
    assert "kernel settings" in shown


LINE = st.text(st.characters(codec="ascii", exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e\x85"), max_size=20)


@given(st.lists(LINE, max_size=6), st.lists(LINE, max_size=4), st.lists(LINE, max_size=4))
def test_block_changes_nothing_outside_itself(other: list[str], first: list[str], second: list[str]) -> None:
    original = "".join(f"{line}\n" for line in other)
    once = managed_files.with_block(original, "x", first)
    assert managed_files.with_block(once, "x", first) == once
    assert managed_files.with_block(managed_files.with_block(once, "x", second), "x", []) == original


def test_begin_without_end_swallows_no_foreign_line() -> None:
    broken = "a\n# BEGIN Tortie: x\nforeign\n"
    assert "foreign\n" in managed_files.with_block(broken, "x", ["ours"])


def test_file_without_our_mark_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("somebody else's\n")
    assert not managed_files.no_file(str(path))
    path.write_text(f"{managed_files.MARK}\nours\n")
    change = managed_files.no_file(str(path))
    managed_files.apply(change)
    assert not path.exists()


def test_mode_of_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old\n")
    path.chmod(0o640)
    managed_files.apply(managed_files.whole_file(str(path), "new"))
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text().endswith("new\n")
