"""The machines' disk image: `python -m lab.vms.disk` makes it when needed and prints its folder.

The folder holds `disk.img` (the root file system, ext4), `vmlinuz` and `initrd.img`. It is named by the
content of what goes in: the Debian root file system, the files below `guest`, the bundle's container images
and programs, and the network's image. `--check` makes nothing and says what would be done. BUNDLE names a
bundle made elsewhere; LAB_PRELOAD=no leaves everything out that is not Debian's.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from plugins.module_utils.bundle import BINARY, CNI_PLUGIN, IMAGE, BundleError
from plugins.module_utils.bundle import load as load_bundle

from lab import LabError, cache, image, once
from lab.bundle import choice
from lab.vms import initramfs, preload, rootfs

HERE = Path(__file__).parent
GUEST = HERE / "guest"

# The size that the machines see; the file is sparse. What the nodes of a cluster write goes to an overlay.
DISK_SIZE = "8G"
# metadata_csum costs processor time under emulation; the file system is younger than any disk that could
# decay.
MKE2FS = (
    "-t",
    "ext4",
    "-O",
    "^metadata_csum",
    "-E",
    "lazy_itable_init=1,nodiscard,root_owner=0:0",
    "-m",
    "0",
)
# What an unpacked root file system with all images and the image made of it take at most, while it is made.
SPACE_MIB = 5120
IMAGES_KEPT = 2
# Where the roles put programs: kubernetes_bundle_bin_dir and containerd_cni_bin_dir. Copying them over ssh to
# an emulated machine takes as long as an image; the roles find them by checksum.
FOLDERS = {BINARY: PurePosixPath("/usr/local/bin"), CNI_PLUGIN: PurePosixPath("/opt/cni/bin")}

ENABLED = ("systemd-networkd.service", "ssh.service")
# Containerd and the firewalls are the roles' matter.
DISABLED = ("containerd.service", "nftables.service", "ipset.service")
# Timers that would want the internet, and what waits for hardware or people that a machine of the lab has
# not.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "dpkg-db-backup.timer", "systemd-networkd-wait-online.service", "systemd-pstore.service",
    "systemd-logind.service", "systemd-timesyncd.service", "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service", "systemd-update-utmp.service", "systemd-binfmt.service",
    "getty.target", "serial-getty@ttyS0.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "dev-hugepages.mount", "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service",
)  # fmt: skip


class DiskError(LabError):
    """The disk image cannot be made."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the bundle, and where the roles would put it."""

    source: Path
    target: PurePosixPath
    sha256: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What goes into a disk image: archives of the root file system and of container images, and programs."""

    root: Path
    images: tuple[Path, ...] = ()
    # Names and image IDs: an archive's bytes may change without a change of its image.
    image_ids: tuple[str, ...] = ()
    programs: tuple["Program", ...] = ()

    def digest(self) -> str:
        """What the image is named by."""
        own = cache.tree_digest([*HERE.glob("*.py"), GUEST, initramfs.INIT], HERE)
        programs = [f"{program.target} {program.sha256}" for program in self.programs]
        return cache.digest([self.root.name, own, *self.image_ids, *programs])


def inputs(bundle: Path, network: image.Archive, root: Path) -> Inputs:
    """The inputs as they are now. BundleError when `bundle` is none.

    With LAB_PRELOAD=no only the root file system: the machines are then as Debian makes them.
    """
    if os.environ.get("LAB_PRELOAD", "yes") == "no":
        return Inputs(root)
    artifacts = load_bundle(bundle).artifacts
    wanted = [artifact for artifact in artifacts if artifact.kind == IMAGE]
    return Inputs(
        root,
        (*(bundle / artifact.path for artifact in wanted), network.path),
        (*(f"{artifact.image} {artifact.image_id or artifact.sha256}" for artifact in wanted), network.name),
        tuple(
            Program(bundle / artifact.path, FOLDERS[artifact.kind] / artifact.name, artifact.sha256)
            for artifact in artifacts
            if artifact.kind in FOLDERS
        ),
    )


def folder_of(wanted: Inputs) -> Path:
    """Where the disk image of these inputs lies, or would."""
    return cache.directory("machines") / wanted.digest()


def ensure(wanted: Inputs) -> tuple[Path, bool]:
    """The folder of the disk image, and whether it had to be made. DiskError when it cannot be."""
    folder = folder_of(wanted)
    built = not folder.is_dir()
    if built:
        cache.check_space(folder.parent, SPACE_MIB, "Making the machines' disk image")
    once.make(folder, lambda partial: _fill(partial, wanted))
    os.utime(folder)
    for old in cache.newest_first(path for path in folder.parent.iterdir() if _is_image(path))[IMAGES_KEPT:]:
        shutil.rmtree(old)
    return folder, built


def _is_image(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _fill(folder: Path, wanted: Inputs) -> None:
    tree = folder / "tree"
    tree.mkdir()
    _say("unpacking the root file system")
    _run(
        ["tar", "--extract", "--numeric-owner", "--preserve-permissions", "--file", str(wanted.root)],
        cwd=tree,
    )
    _run(["cp", "--recursive", "--no-preserve=ownership", f"{GUEST}/.", str(tree)])
    for action, units in (("enable", ENABLED), ("disable", DISABLED), ("mask", MASKED)):
        _run(["chroot", str(tree), "systemctl", "--quiet", action, *units])
    _take_boot_files(tree, folder)
    if wanted.images:
        _say(f"unpacking {len(wanted.images)} container images")
        preload.load(tree, wanted.images)
    for program in wanted.programs:
        target = tree / program.target.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(program.source, target)
        target.chmod(0o755)
    _say("writing the disk image")
    disk = folder / "disk.img"
    _run(["mke2fs", "-q", *MKE2FS, "-d", str(tree), str(disk), DISK_SIZE])
    shutil.rmtree(tree)


def _take_boot_files(tree: Path, folder: Path) -> None:
    """The newest kernel, and an initramfs of ours: Debian's would look for any machine's disk."""
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise DiskError(
            "The machines' root file system has no kernel below /boot; run `make clean` and try again."
        )
    shutil.copyfile(kernels[-1], folder / "vmlinuz")
    version = kernels[-1].name.removeprefix("vmlinuz-")
    (folder / "initrd.img").write_bytes(initramfs.build(tree / "lib" / "modules" / version))
    for unused in (tree / "boot").glob("initrd.img-*"):
        unused.unlink()


def _say(text: str) -> None:
    """A sign of life for whoever waits."""
    print(text, flush=True)


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if answer.returncode != 0:
        raise DiskError(f"`{' '.join(command)}` failed: {answer.stderr.strip()[-800:]}")


def main(arguments: Sequence[str]) -> int:
    """Command line; the last two lines of standard output are `built` or `cached`, and the folder."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.vms.disk", description="Make the machines' disk image."
    )
    parser.add_argument("--check", action="store_true", help="make nothing; say what would be done")
    check = parser.parse_args(arguments).check
    given = os.environ.get("BUNDLE")
    try:
        bundle = Path(given).absolute() if given else choice.obtain(choice.Request())
        root = rootfs.expected() if check else rootfs.ensure()
        wanted = inputs(bundle, image.ensure(), root)
        folder, built = (folder_of(wanted), not folder_of(wanted).is_dir()) if check else ensure(wanted)
    except (LabError, BundleError) as error:
        print(error, file=sys.stderr)
        return 1
    print("built" if built else "cached")
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
