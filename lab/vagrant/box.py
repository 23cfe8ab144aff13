"""A Vagrant box for libvirt made of the disk image of the lab's machines.

    python -m lab.vagrant.box DISK_FOLDER BOX

DISK_FOLDER is what `python -m lab.vms.disk` prints; BOX is the archive to write. What makes a machine of the
lab a box (the user `vagrant`, its sudo rights, DHCP on the first link) goes in by way of the initramfs, like
every other machine's own files: the disk image is the very same.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plugins.module_utils.lab_vm_cpio import File, archive

from lab import LabError

HERE = Path(__file__).parent
SEED = HERE / "seed"
# The box format wants the disk's size in GiB, rounded up.
GIB = 1 << 30


def seed(public_key: str) -> bytes:
    """The cpio archive of the files that the first boot lays over the root file system.

    public_key: the line for authorized_keys; Vagrant replaces it by a key of the machine's own.
    """
    files = {
        f"seed/{path.relative_to(SEED)}": File(path.read_bytes())
        for path in sorted(SEED.rglob("*"))
        if path.is_file()
    }
    # With an end of line: Vagrant appends the machine's own key, then removes this line.
    files["seed/etc/vagrant-key"] = File(f"{public_key.strip()}\n".encode())
    return archive(files)


def metadata(virtual_size: int) -> dict[str, object]:
    """The box's metadata.json; virtual_size is the disk's in bytes."""
    return {"provider": "libvirt", "format": "qcow2", "virtual_size": -(-virtual_size // GIB)}


def make(disk: Path, public_key: str, target: Path) -> None:
    """Write the box. LabError when the disk cannot be converted."""
    with tempfile.TemporaryDirectory(prefix="tortie-box-", dir=target.parent) as name:
        folder = Path(name)
        command = ["qemu-img", "convert", "-O", "qcow2", str(disk / "disk.img"), str(folder / "box.img")]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise LabError(f"qemu-img cannot convert {disk / 'disk.img'}: {answer.stderr.strip()}")
        (folder / "metadata.json").write_text(json.dumps(metadata((disk / "disk.img").stat().st_size)))
        (folder / "Vagrantfile").write_text((HERE / "box.rb").read_text())
        (folder / "vmlinuz").write_bytes((disk / "vmlinuz").read_bytes())
        (folder / "initrd.img").write_bytes((disk / "initrd.img").read_bytes() + seed(public_key))
        with tarfile.open(target, "w") as box:
            for path in sorted(folder.iterdir()):
                box.add(path, path.name)


def main(arguments: Sequence[str]) -> int:
    """Command line: see the module's text. The public key comes on standard input."""
    if len(arguments) != 2:
        print("usage: python -m lab.vagrant.box DISK_FOLDER BOX < public key", file=sys.stderr)
        return 2
    try:
        make(Path(arguments[0]), sys.stdin.read(), Path(arguments[1]))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
