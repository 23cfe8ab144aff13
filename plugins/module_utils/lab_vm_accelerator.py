"""Hardware acceleration for virtual machines: used only after a machine has really booted with it.

/dev/kvm may be there and not work: nested in another machine, or cut off by a sandbox. The answer is
remembered in the lab's folder.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.tortie.cluster.plugins.module_utils.lab_commands import CommandError
from ansible_collections.tortie.cluster.plugins.module_utils.lab_plan import Lab
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_plan import (
    EMULATION,
    KVM,
    PROBE_ANSWER,
    Image,
    probe_arguments,
)
from ansible_collections.tortie.cluster.plugins.module_utils.lab_vm_process import missing_qemu

DEVICE = Path("/dev/kvm")
# A kernel is up within a second when its processor is a real one.
PROBE_SECONDS = 15.0


@dataclass(frozen=True)
class Acceleration:
    """What the machines run with (KVM or EMULATION), and why; `image` is the one that was tried."""

    kind: str
    reason: str
    image: str


def record_path(lab: Lab) -> Path:
    """Where the answer is remembered."""
    return lab.directory / "nodes" / "acceleration.json"


def remembered(lab: Lab, image: Image) -> Acceleration | None:
    """The answer of an earlier run with the same kernel, or None."""
    try:
        found = Acceleration(**json.loads(record_path(lab).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if found.image == image.folder.name else None


def decide(lab: Lab, image: Image, wanted: str) -> Acceleration:
    """What to run with; `wanted` is `auto`, or what the user insists on."""
    if wanted != "auto":
        return Acceleration(wanted, "LAB_ACCELERATOR says so", image.folder.name)
    found = remembered(lab, image)
    if found is None:
        found = probe(image)
        path = record_path(lab)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(found), indent=2) + "\n")
        partial.rename(path)
    return found


def probe(image: Image, device: Path = DEVICE) -> Acceleration:
    """Boot the kernel with hardware acceleration, if there is any, for as long as PROBE_SECONDS."""
    name = image.folder.name
    if not device.exists():
        return Acceleration(EMULATION, f"this machine has no {device}", name)
    try:
        result = subprocess.run(
            probe_arguments(image, KVM),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise CommandError(missing_qemu()) from error
    except subprocess.TimeoutExpired:
        reason = f"{device} is there, but no kernel came up with it within {PROBE_SECONDS:.0f} s"
        return Acceleration(EMULATION, reason, name)
    if PROBE_ANSWER in result.stdout:
        return Acceleration(KVM, "a kernel came up with it", name)
    said = " ".join(result.stderr.split())[-200:] or "nothing"
    return Acceleration(
        EMULATION, f"{device} is there, but a kernel does not come up with it; QEMU said: {said}", name
    )
