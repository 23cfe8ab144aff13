"""Which files a reset takes away, gives back and leaves. The machine is a folder."""

from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import managed_files, reset_files, reset_record
from ansible_collections.tortie.cluster.plugins.module_utils.reset_action import Action, Machine, ResetError
from ansible_collections.tortie.cluster.plugins.module_utils.reset_record import ABSENT, EMPTY, FILLED, Record


def machine(root: Path, record: Record | None = None) -> Machine:
    return Machine(record=record, ours=True, container=True, root=str(root))


def write(root: Path, path: str, text: str) -> Path:
    place = reset_record.under(str(root), path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


def carry_out(actions: list[Action]) -> list[str]:
    for action in actions:
        action.do()
    return [action.what for action in actions]


def test_file_with_our_mark_goes_and_another_stays(tmp_path: Path) -> None:
    ours = write(tmp_path, "/etc/sysctl.d/90-tortie.conf", f"{managed_files.MARK}\nnet.ipv4.ip_forward = 1\n")
    theirs = write(tmp_path, "/etc/modules-load.d/90-tortie.conf", "overlay\n")
    assert carry_out(reset_files.settings_files(machine(tmp_path))) == ["remove /etc/sysctl.d/90-tortie.conf"]
    assert not ours.exists()
    assert theirs.exists()


def test_replaced_file_comes_back(tmp_path: Path) -> None:
    record = Record()
    reset_record.save(record, str(tmp_path))
    place = write(tmp_path, "/etc/crictl.yaml", "theirs")
    reset_record.keep_original("/etc/crictl.yaml", str(tmp_path))
    place.write_text(managed_files.MARK)
    found = reset_files.file_actions(machine(tmp_path, record), ["/etc/crictl.yaml"])
    assert carry_out(found) == ["restore /etc/crictl.yaml"]
    assert place.read_text() == "theirs"
    assert reset_files.file_actions(machine(tmp_path, record), ["/etc/crictl.yaml"]) == []


@pytest.mark.parametrize(("before", "exists"), [(ABSENT, False), (EMPTY, True)])
def test_data_folder_is_removed_or_emptied_as_it_was(tmp_path: Path, before: str, exists: bool) -> None:
    record = Record(paths={"/var/lib/kubelet": before}, modes={"/var/lib/kubelet": 0o711})
    write(tmp_path, "/var/lib/kubelet/pods/1/volumes/data", "data")
    assert len(carry_out(reset_files.trees(machine(tmp_path, record)))) == 1
    folder = tmp_path / "var/lib/kubelet"
    assert folder.exists() == exists
    if exists:
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o7777 == 0o711
    assert reset_files.trees(machine(tmp_path, record)) == []


def test_folder_that_held_something_before_is_left_alone(tmp_path: Path) -> None:
    record = Record(paths={"/var/lib/etcd": FILLED})
    place = write(tmp_path, "/var/lib/etcd/member/snap/db", "somebody's")
    assert reset_files.trees(machine(tmp_path, record)) == []
    assert place.exists()


def test_empty_folders_that_were_there_stay(tmp_path: Path) -> None:
    record = Record(paths={"/etc/kubernetes": EMPTY, "/etc/kubernetes/manifests": EMPTY})
    write(tmp_path, "/etc/kubernetes/manifests/etcd.yaml", "ours")
    write(tmp_path, "/etc/kubernetes/pki/ca.crt", "ours")
    carry_out(reset_files.trees(machine(tmp_path, record)))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "etc",
        "etc/kubernetes",
        "etc/kubernetes/manifests",
    ]
    assert reset_files.trees(machine(tmp_path, record)) == []


def test_symbolic_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path, "/srv/precious", "data")
    folder = tmp_path / "var/lib/kubelet"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(outside.parent)
    carry_out(reset_files.trees(machine(tmp_path, Record(paths={"/var/lib/kubelet": ABSENT}))))
    assert outside.read_text() == "data"
    assert not folder.exists()


def test_another_file_system_below_a_folder_is_refused_and_kept(tmp_path: Path) -> None:
    precious = write(tmp_path, "/var/lib/kubelet/volume/precious", "data")
    other_device = tmp_path.stat().st_dev + 1
    with pytest.raises(ResetError, match="another file system; unmount it, and reset again"):
        reset_files.empty_folder(tmp_path / "var/lib/kubelet", other_device)
    assert precious.read_text() == "data"


def test_program_that_somebody_has_replaced_stays_and_is_named(tmp_path: Path) -> None:
    ours = write(tmp_path, "/usr/local/bin/kubeadm", "ours")
    write(tmp_path, "/usr/local/bin/kubectl", "another one")
    digest = reset_files.sha256_of(ours)
    here = machine(
        tmp_path, Record(programs={"/usr/local/bin/kubeadm": digest, "/usr/local/bin/kubectl": digest})
    )
    assert carry_out(reset_files.programs(here)) == ["remove /usr/local/bin/kubeadm"]
    assert [note.split()[0] for note in here.notes] == ["/usr/local/bin/kubectl"]
    assert reset_files.programs(machine(tmp_path)) == []


def test_plugin_that_was_there_before_the_network_comes_back(tmp_path: Path) -> None:
    record = Record(paths={"/opt/cni/bin/portmap": FILLED, "/opt/cni/bin/calico": ABSENT})
    write(tmp_path, "/opt/cni/bin/portmap", "theirs")
    reset_record.begin(record, str(tmp_path))
    for name in ("portmap", "calico"):
        write(tmp_path, f"/opt/cni/bin/{name}", "ours")
    assert carry_out(reset_files.programs(machine(tmp_path, record))) == [
        "remove /opt/cni/bin/calico",
        "restore /opt/cni/bin/portmap",
    ]
    assert (tmp_path / "opt/cni/bin/portmap").read_text() == "theirs"
    assert reset_files.programs(machine(tmp_path, record)) == []


def test_folder_of_ours_goes_only_when_nothing_else_is_in_it(tmp_path: Path) -> None:
    record = Record(paths=dict.fromkeys(("/opt/cni", "/opt/cni/bin", "/etc/cni", "/etc/cni/net.d"), ABSENT))
    (tmp_path / "opt/cni/bin").mkdir(parents=True)
    write(tmp_path, "/etc/cni/net.d/99-mine.conf", "theirs")
    carry_out(reset_files.parents(machine(tmp_path, record)))
    assert not (tmp_path / "opt/cni").exists()
    assert (tmp_path / "etc/cni/net.d/99-mine.conf").exists()


def test_hosts_and_fstab_are_as_they_were(tmp_path: Path) -> None:
    hosts, fstab = "127.0.0.1 localhost\n", "/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\n"
    block = managed_files.with_block(hosts, reset_files.HOSTS_BLOCK, ["10.0.0.1 master-01"])
    write(tmp_path, "/etc/hosts", block)
    write(tmp_path, "/etc/fstab", managed_files.without_swap(fstab))
    assert carry_out(reset_files.mixed_files(machine(tmp_path))) == [
        f"clean {tmp_path}/etc/hosts",
        f"clean {tmp_path}/etc/fstab",
    ]
    assert (tmp_path / "etc/hosts").read_text() == hosts
    assert (tmp_path / "etc/fstab").read_text() == fstab
    assert reset_files.mixed_files(machine(tmp_path)) == []


def test_machine_without_any_trace_of_ours_keeps_everything(tmp_path: Path) -> None:
    write(tmp_path, "/var/lib/kubelet/config.yaml", "theirs")
    write(tmp_path, "/etc/hosts", "127.0.0.1 localhost\n")
    foreign = Machine(
        record=None, ours=bool(reset_files.marked_files(str(tmp_path))), container=True, root=str(tmp_path)
    )
    assert [reset_files.trees(foreign), reset_files.mixed_files(foreign), reset_files.mounts(foreign)] == [
        [],
        [],
        [],
    ]


def test_mount_points_of_mountinfo_are_unescaped_in_order() -> None:
    text = (
        "36 35 98:0 / /var/lib/kubelet rw - ext4 /dev/sda1 rw\n"
        "37 36 0:50 / /var/lib/kubelet/pods/a\\040b rw shared:1 - tmpfs tmpfs rw\n"
    )
    assert reset_files.mount_points(text) == ["/var/lib/kubelet", "/var/lib/kubelet/pods/a b"]
