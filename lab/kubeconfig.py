"""Fetch the cluster's administrator kubeconfig for use on this machine: `python -m lab.kubeconfig`."""

import os
import re
import subprocess
import sys

from lab import LabError, settings

ADMIN_KUBECONFIG = "/etc/kubernetes/admin.conf"


def for_loopback(text: str, port: int) -> str:
    """A kubeconfig whose server is 127.0.0.1:`port` instead. LabError when it names no server."""
    replaced, count = re.subn(
        r"^(\s*server:\s*)\S+$", rf"\g<1>https://127.0.0.1:{port}", text, flags=re.MULTILINE
    )
    if count == 0:
        raise LabError(
            f"{ADMIN_KUBECONFIG} of the control plane names no server; is the cluster initialised?"
        )
    return replaced


def fetch(lab: settings.Settings, node: str) -> None:
    """Write the lab's kubeconfig (mode 0600) from what `node`, a control plane, has."""
    result = subprocess.run(
        ["ssh", "-F", str(lab.ssh_config), node, "cat", ADMIN_KUBECONFIG],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise LabError(f"{node} does not give {ADMIN_KUBECONFIG}: {result.stderr.strip()}")
    text = for_loopback(result.stdout, settings.api_port(lab))
    partial = lab.kubeconfig.with_name("kubeconfig.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    partial.rename(lab.kubeconfig)


def main() -> int:
    """Command line: the name of a control plane node."""
    if len(sys.argv) != 2:
        print("usage: python -m lab.kubeconfig NODE", file=sys.stderr)
        return 2
    lab = settings.from_environment()
    try:
        fetch(lab, sys.argv[1])
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print(lab.kubeconfig)
    return 0


if __name__ == "__main__":
    sys.exit(main())
