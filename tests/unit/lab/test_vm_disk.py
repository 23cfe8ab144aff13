"""What goes into the machines' initramfs and disk image."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from lab import LabError, image, settings, up
from lab.vms import disk, initramfs, rootfs

ROOT = Path(__file__).parents[3]
DEPENDENCIES = """\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko
"""
BUILTIN = ["kernel/fs/ext4/ext4.ko"]


def order(*wanted: str) -> list[str]:
    found = initramfs.load_order(wanted, initramfs.parse_dependencies(DEPENDENCIES), BUILTIN)
    return [Path(path).stem for path in found]


def test_modules_are_loaded_after_what_they_need_and_once() -> None:
    assert order("virtio_blk", "virtio_rng") == ["virtio", "virtio_ring", "virtio_blk", "virtio-rng"]


def test_what_is_built_in_is_not_loaded() -> None:
    assert order("ext4") == []


def test_module_that_the_kernel_lacks_is_named() -> None:
    with pytest.raises(initramfs.InitramfsError, match="no module ipip"):
        order("ipip")


def test_init_answers_a_probe_with_the_words_that_are_waited_for() -> None:
    from ansible_collections.tortie.cluster.plugins.module_utils import lab_vm_plan

    text = initramfs.INIT.read_text()
    assert f'echo "{lab_vm_plan.PROBE_ANSWER}"' in text
    assert f'" {lab_vm_plan.PROBE_ARGUMENT} "' in text


def test_image_is_named_by_root_file_system_and_container_images() -> None:
    one = disk.Inputs(Path("machine-1.tar"), (Path("a.tar"),), ("a sha256:1",))
    assert one.digest() == replace(one, images=(Path("elsewhere/a.tar"),)).digest()
    assert one.digest() != replace(one, image_ids=("a sha256:2",)).digest()
    assert one.digest() != replace(one, root=Path("machine-2.tar")).digest()
    program = disk.Program(Path("kubelet"), disk.FOLDERS["binary"] / "kubelet", "1" * 64)
    assert one.digest() != replace(one, programs=(program,)).digest()


def test_image_without_preloading_holds_debian_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_PRELOAD", "no")
    network = image.Archive(tmp_path / "tortie.tar", "tortie", built=False)
    assert disk.inputs(tmp_path, network, Path("machine.tar")) == disk.Inputs(Path("machine.tar"))


def test_programs_lie_where_the_roles_would_put_them() -> None:
    defaults = {
        role: yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text())
        for role in ("kubernetes", "containerd")
    }
    assert str(disk.FOLDERS["binary"]) == defaults["kubernetes"]["kubernetes_bundle_bin_dir"]
    assert str(disk.FOLDERS["cni-plugin"]) == defaults["containerd"]["containerd_cni_bin_dir"]


def test_machines_have_a_kernel_that_containers_do_not() -> None:
    assert "linux-image-cloud-amd64" in rootfs.PACKAGES


def test_kind_of_lab_chooses_inventory_and_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVENTORY", raising=False)
    monkeypatch.setenv("LAB", "vms")
    assert settings.from_environment().inventory.endswith("/inventory/reference")
    assert "lab.vms.rootfs" in up.preparation(None, settings.VMS)["node"].command
    monkeypatch.delenv("LAB")
    assert settings.from_environment().inventory.endswith("/inventory/lab")
    assert "lab.containers.nodeimage" in up.preparation(None)["node"].command


def test_unknown_kind_of_lab_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB", "cloud")
    with pytest.raises(LabError, match="LAB is 'cloud'; set it to containers or to vms"):
        settings.from_environment()
