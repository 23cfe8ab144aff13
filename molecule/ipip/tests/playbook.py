"""Converge again with other settings, and what that has changed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster_fixtures import NAMESPACE, get_json
from machines import boot_id
from testinfra.host import Host

ROOT = Path(__file__).parents[3]
SECONDS = 1500.0


def converge(*tags: str, **settings: str | int) -> set[tuple[str, str]]:
    """Converge with variables of the inventory replaced; the tasks that changed something, and where.

    `tags` leaves the other roles out, as a user does who knows what the change is about."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", os.environ["LAB_INVENTORY"]]
    command += ["molecule/default/converge.yml", "--extra-vars", json.dumps(settings)]
    command += [f"--tags={','.join(tags)}"] if tags else []
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    environment.pop("ANSIBLE_FORCE_COLOR", None)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    changed, task = set(), ""
    for line in done.stdout.splitlines():
        if title := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\]", line):
            task = title[1]
        elif result := re.match(r"changed: \[([^\]]+)\]", line):
            changed.add((task, result[1].split(" -> ")[0]))
    return changed


def identity(control_plane: Host, nodes: list[str]) -> dict[str, Any]:
    """What another cluster, another boot or another pod would have differently."""
    namespace = get_json(control_plane, "namespace kube-system")
    pods = get_json(control_plane, f"pods -n {NAMESPACE}")["items"]
    return {
        "cluster": namespace["metadata"]["uid"],
        "nodes": {
            node["metadata"]["name"]: node["metadata"]["uid"]
            for node in get_json(control_plane, "nodes")["items"]
        },
        "boots": {node: boot_id(node) for node in nodes},
        "pods": {
            pod["metadata"]["name"]: (
                pod["metadata"]["uid"],
                pod["status"]["podIP"],
                pod["status"]["containerStatuses"][0]["restartCount"],
            )
            for pod in pods
            if pod["metadata"]["name"].startswith("probe-")
        },
    }
