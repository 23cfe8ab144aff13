# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Bring what a node lacks of a bundle to it and install it (see the module of the same name for the
documentation).
"""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.plugins.action import ActionBase

INSTALL = "tortie.cluster.bundle_install"


class ActionModule(ActionBase):
    """One round trip when the node lacks nothing."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Query, transfer what is missing, install, remove what was transferred."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {name: value for name, value in self._task.args.items() if name != "dir"}
        directory = self._task.args.get("dir")
        if not directory or "artifacts" not in arguments:
            result.update(
                failed=True, msg="bundle_deploy needs dir (the bundle on the controller) and artifacts."
            )
            return result
        query = self._execute_module(INSTALL, {**arguments, "state": "query"}, task_vars=task_vars)
        if query.get("failed") and self._task.check_mode:
            # Before the first run containerd is not configured and cannot say which images it has.
            wanted = {**arguments, "state": "query", "kinds": ["binary", "cni-plugin"]}
            failure = query
            query = self._execute_module(INSTALL, wanted, task_vars=task_vars)
            query.setdefault("warnings", []).append(f"The images were not compared: {failure.get('msg')}")
        if query.get("failed") or not query["missing"] or self._task.check_mode:
            query["changed"] = not query.get("failed", False) and bool(query["missing"])
            result.update(query)
            return result
        remote = self._make_tmp_path()
        try:
            self._transfer(Path(str(directory)), remote, list(query["missing"]), list(query["missing_dirs"]))
            install = {**arguments, "state": "present", "bundle_dir": remote}
            result.update(self._execute_module(INSTALL, install, task_vars=task_vars))
        finally:
            self._base._remove_tmp_path(remote, force=True)
        result.pop("diff", None)
        if not result.get("failed") and query.get("diff"):
            result["diff"] = query["diff"]
        return result

    @property
    def _base(self) -> Any:
        """Ourselves, by methods that ansible-core has not annotated."""
        return self

    def _transfer(self, directory: Path, remote: str, paths: list[str], folders: list[str]) -> None:
        """Copy files to the temporary directory on the node, which belongs to the user who logs in."""
        quoted = " ".join(shlex.quote(str(PurePosixPath(remote, folder))) for folder in folders)
        if quoted:
            self._base._low_level_execute_command(f"mkdir -p {quoted}", sudoable=False)
        for path in paths:
            self._base._transfer_file(str(directory / path), str(PurePosixPath(remote, path)))
