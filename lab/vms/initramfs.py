"""The initramfs of the virtual machines: busybox, the modules that find the disk, and the script `init`."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from plugins.module_utils.lab_vm_cpio import File, archive

from lab import LabError, debs

INIT = Path(__file__).parent / "init"
# What the kernel must have before it can mount the root file system, and the network card while we are at
# it: systemd then waits for no device.
WANTED = ("virtio_pci", "virtio_blk", "ext4", "virtio_net", "virtio_rng")
# Mount points, and where a machine's own files are laid (they may be missing in a probe).
FOLDERS = ("dev", "proc", "root", "seed", "sys")


class InitramfsError(LabError):
    """The kernel's modules do not give an initramfs."""


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """modules.dep (depmod(8)): by path, the paths of the modules that it needs."""
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {path: needed.split() for path, _, needed in lines}


def load_order(
    wanted: Iterable[str], dependencies: Mapping[str, list[str]], builtin: Iterable[str]
) -> list[str]:
    """Paths of the modules to load, each after what it needs. InitramfsError for an unknown one."""
    by_name = {_name(path): path for path in dependencies}
    built_in = {_name(path) for path in builtin}
    order: dict[str, None] = {}

    def add(path: str) -> None:
        if path in order:
            return
        for needed in dependencies[path]:
            add(needed)
        order[path] = None

    for name in wanted:
        if name in by_name:
            add(by_name[name])
        elif name not in built_in:
            raise InitramfsError(f"The machines' kernel has no module {name}, neither built in nor to load.")
    return list(order)


def _name(path: str) -> str:
    """A module's name from its file's, where a dash may stand for an underscore (modprobe(8))."""
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def build(modules: Path) -> bytes:
    """The initramfs for the kernel whose modules lie in `modules` (lib/modules/<version>)."""
    order = load_order(
        WANTED,
        parse_dependencies((modules / "modules.dep").read_text()),
        (modules / "modules.builtin").read_text().split(),
    )
    busybox = debs.extract("busybox-static") / "bin" / "busybox"
    files = {
        "init": File(INIT.read_bytes(), 0o755),
        "bin/busybox": File(busybox.read_bytes(), 0o755),
        "modules/order": File("".join(f"{Path(path).name}\n" for path in order).encode()),
    }
    files |= {f"modules/{Path(path).name}": File((modules / path).read_bytes()) for path in order}
    return archive(files, FOLDERS)
