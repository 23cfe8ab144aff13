"""The record of what a machine was: noted before a change, read back, given back. Here a folder."""

import json
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import reset_record
from ansible_collections.tortie.cluster.plugins.module_utils.reset_record import ABSENT, EMPTY, FILLED, Record


@pytest.fixture
def machine(tmp_path: Path) -> str:
    """A machine with a record."""
    reset_record.save(Record(sysctls={"net.ipv4.ip_forward": "0"}), str(tmp_path))
    return str(tmp_path)


def loaded(root: str) -> Record:
    record = reset_record.load(root)
    assert record is not None
    return record


def write(root: str, path: str, text: str, mode: int = 0o644) -> Path:
    place = reset_record.under(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(mode)
    return place


def test_first_value_of_a_setting_stays(machine: str) -> None:
    reset_record.note_sysctls({"net.ipv4.ip_forward": "1", "vm.swappiness": "60"}, machine)
    assert loaded(machine).sysctls == {"net.ipv4.ip_forward": "0", "vm.swappiness": "60"}


def test_setting_that_the_kernel_lacked_is_not_noted(machine: str) -> None:
    reset_record.note_sysctls({"net.bridge.bridge-nf-call-iptables": ""}, machine)
    assert "net.bridge.bridge-nf-call-iptables" not in loaded(machine).sysctls


def test_without_a_record_nothing_is_noted_or_kept(tmp_path: Path) -> None:
    write(str(tmp_path), "/etc/crictl.yaml", "theirs")
    reset_record.note_sysctls({"a": "1"}, str(tmp_path))
    reset_record.note_programs({"/etc/crictl.yaml": "0" * 64}, str(tmp_path))
    assert reset_record.load(str(tmp_path)) is None
    assert not reset_record.under(str(tmp_path), reset_record.FOLDER).exists()


def test_original_comes_back_with_its_mode_and_the_first_copy_counts(machine: str) -> None:
    place = write(machine, "/etc/crictl.yaml", "theirs", 0o640)
    reset_record.keep_original("/etc/crictl.yaml", machine)
    place.write_text("ours")
    reset_record.keep_original("/etc/crictl.yaml", machine)
    place.unlink()
    assert reset_record.restore_original("/etc/crictl.yaml", machine)
    assert place.read_text() == "theirs"
    assert place.stat().st_mode & 0o7777 == 0o640


def test_program_of_ours_is_not_kept_as_somebody_elses(machine: str) -> None:
    write(machine, "/usr/local/bin/kubeadm", "old version of ours")
    reset_record.note_programs({"/usr/local/bin/kubeadm": "1" * 64}, machine)
    assert reset_record.under(machine, reset_record.ORIGINALS + "/usr/local/bin/kubeadm").exists()
    reset_record.under(machine, reset_record.ORIGINALS + "/usr/local/bin/kubeadm").unlink()
    reset_record.note_programs({"/usr/local/bin/kubeadm": "2" * 64}, machine)
    assert not reset_record.under(machine, reset_record.ORIGINALS + "/usr/local/bin/kubeadm").exists()
    assert loaded(machine).programs == {"/usr/local/bin/kubeadm": "2" * 64}


def test_broken_record_is_a_sentence(machine: str) -> None:
    reset_record.under(machine, reset_record.RECORD).write_text("{")
    with pytest.raises(ValueError, match=r"before\.json is not readable .* Remove the file"):
        reset_record.load(machine)


def test_field_of_a_newer_version_is_passed_over(machine: str) -> None:
    place = reset_record.under(machine, reset_record.RECORD)
    place.write_text(json.dumps({**json.loads(place.read_text()), "newer": 1}))
    assert loaded(machine).sysctls == {"net.ipv4.ip_forward": "0"}


def test_state_of_a_folder(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert reset_record.folder_states("/var/lib/etcd", root) == {"/var/lib/etcd": ABSENT}
    reset_record.under(root, "/etc/kubernetes/manifests").mkdir(parents=True)
    assert reset_record.folder_states("/etc/kubernetes", root) == {
        "/etc/kubernetes": EMPTY,
        "/etc/kubernetes/manifests": EMPTY,
    }
    write(root, "/etc/kubernetes/manifests/etcd.yaml", "theirs")
    assert reset_record.folder_states("/etc/kubernetes", root) == {"/etc/kubernetes": FILLED}


def test_forgetting_leaves_no_folder(machine: str) -> None:
    write(machine, "/etc/crictl.yaml", "theirs")
    reset_record.keep_original("/etc/crictl.yaml", machine)
    reset_record.forget(machine)
    assert not reset_record.under(machine, reset_record.FOLDER).exists()
    reset_record.forget(machine)


def test_record_of_somebody_elses_cluster_says_so(tmp_path: Path) -> None:
    write(str(tmp_path), "/etc/kubernetes/admin.conf", "theirs")
    record = reset_record.take("/opt/cni/bin", "/etc/cni/net.d", "10.5.0.0/16", str(tmp_path))
    assert record.foreign_cluster
    assert record.was_absent("/opt/cni")
    assert not record.was_absent("/never/looked/at")
