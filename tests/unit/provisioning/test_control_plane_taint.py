"""The taint of a control plane node, against a kubectl that keeps one node in a file."""

import json
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import kubeadm_run
from ansible_collections.tortie.cluster.plugins.modules import control_plane_taint

MASTER = {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
# `get` prints the node; `patch` is refused once for each line of the file `conflicts`, then recorded.
KUBECTL = """#!/bin/sh
cd "$(dirname "$0")"
case " $* " in
*" get "*) cat node.json ;;
*" patch "*)
    if [ -s conflicts ]; then
        sed -i 1d conflicts
        echo 'Error from server (Conflict): the object has been modified' >&2
        exit 1
    fi
    for last; do :; done
    echo "$last" > patch.json ;;
esac
"""


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    node = {"metadata": {"resourceVersion": "7"}, "spec": {"taints": [MASTER, NOT_READY]}}
    (tmp_path / "node.json").write_text(json.dumps(node))
    monkeypatch.setattr(kubeadm_run, "environment", lambda: {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    return tmp_path


def conflicts(folder: Path, number: int) -> None:
    (folder / "conflicts").write_text("conflict\n" * number)


def set_schedulable() -> None:
    control_plane_taint.set_taints("master-01", [MASTER["key"]], schedulable=True, check_mode=False)


def test_change_is_tried_again_when_somebody_else_changed_the_node(folder: Path) -> None:
    conflicts(folder, control_plane_taint.ATTEMPTS - 1)
    set_schedulable()
    patch = json.loads((folder / "patch.json").read_text())
    assert patch == {"metadata": {"resourceVersion": "7"}, "spec": {"taints": [NOT_READY]}}


def test_endless_conflict_is_reported(folder: Path) -> None:
    conflicts(folder, control_plane_taint.ATTEMPTS)
    with pytest.raises(kubeadm_run.KubeadmError, match="Conflict"):
        set_schedulable()
    assert not (folder / "patch.json").exists()
