"""From nothing to a proven cluster: `python -m lab.up` (`make up` installs what it needs first)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lab import LabError, kubeconfig, settings, steps

PYTHON = sys.executable


def preparation(bundle: str | None, kind: str = settings.CONTAINERS) -> dict[str, steps.Step]:
    """What can be made at the same time; `bundle` is the directory of a bundle made elsewhere, if any."""
    use = ["--use", bundle] if bundle else []
    node = {
        settings.CONTAINERS: steps.Step("Node image", [PYTHON, "-m", "lab.containers.nodeimage"]),
        settings.VMS: steps.Step("Root file system of the machines", [PYTHON, "-m", "lab.vms.rootfs"]),
    }
    return {
        "bundle": steps.Step("Kubernetes bundle", [PYTHON, "-m", "lab.bundle", *use]),
        "image": steps.Step("Network image", [PYTHON, "-m", "lab.image"]),
        "node": node[kind],
    }


def prepare(lab: settings.Settings, bundle: str | None) -> dict[str, str]:
    """Make everything that the cache should hold; what each step made, by key. LabError when one fails."""
    logs = lab.directory / "logs"
    made = steps.run_together(preparation(bundle, lab.kind), logs)
    if lab.kind == settings.VMS:
        # Made of the others: a machine's disk holds the images.
        made |= steps.run_together({"disk": steps.Step("Disk image", [PYTHON, "-m", "lab.vms.disk"])}, logs)
    return made


def first_control_plane(inventory: str) -> str:
    """Name of the first host of group control_plane. LabError when the inventory has none."""
    result = subprocess.run(
        [settings.tool("ansible-inventory"), "-i", inventory, "--list"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise LabError(f"ansible-inventory cannot read {inventory}: {result.stderr.strip()}")
    hosts = json.loads(result.stdout).get("control_plane", {}).get("hosts", [])
    if not hosts:
        raise LabError(f"{inventory} has no host in group control_plane; put the first control plane there.")
    return str(hosts[0])


def link_kubectl(lab: settings.Settings, bundle: Path) -> Path:
    """Make the bundle's kubectl reachable as bin/kubectl in the lab's folder."""
    source = bundle / "bin" / "kubectl"
    target = lab.directory / "bin" / "kubectl"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.is_symlink() and target.readlink() == source):
        target.unlink(missing_ok=True)
        target.symlink_to(source)
    return target


def bring_up(lab: settings.Settings, bundle: str | None) -> None:
    """All steps in order. LabError at the first that fails."""
    made = prepare(lab, bundle)
    playbook = [settings.tool("ansible-playbook"), "-i", lab.inventory]
    made_variables = {"kubernetes_bundle_dir": made["bundle"], "tortie_image_archive": made["image"]}
    extra = ["--extra-vars", json.dumps(made_variables)]
    steps.run_shown(steps.Step("Machines", [*playbook, "lab/create.yml"]))
    steps.run_shown(steps.Step("Kubernetes and its network", [*playbook, "site.yml", *extra]))
    kubeconfig.fetch(lab, first_control_plane(lab.inventory))
    kubectl = link_kubectl(lab, Path(made["bundle"]))
    steps.run_shown(steps.Step("Verification", [*playbook, "playbooks/verify.yml", *extra]))
    print(
        f"\n  export KUBECONFIG={lab.kubeconfig}\n  {kubectl} get pods -A\n",
        flush=True,
    )


def main() -> int:
    """Command line: no arguments; BUNDLE in the environment names a bundle made elsewhere."""
    if os.geteuid() != 0:
        print("The lab makes network namespaces and containers: run it as root.", file=sys.stderr)
        return 1
    os.chdir(settings.ROOT)
    started = time.monotonic()
    try:
        bring_up(settings.from_environment(), os.environ.get("BUNDLE") or None)
    except LabError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"==> Up in {steps.seconds(time.monotonic() - started)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
