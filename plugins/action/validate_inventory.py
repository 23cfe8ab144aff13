# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Judge the inventory on the controller, before any host is touched (see the module of the same name for the
documentation).
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.tortie.cluster.plugins.module_utils.validation import Cluster, problems
from ansible_collections.tortie.cluster.plugins.module_utils.variable_names import unknown_variables
from ansible_collections.tortie.cluster.plugins.plugin_utils.cluster_settings import collect


class ActionModule(ActionBase):
    """Runs without a connection."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every problem at once, or return how many hosts were looked at."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        groups = variables["groups"]
        settings = collect(list(groups.get("cluster", [])), variables, self._templar, self._loader)
        cluster = Cluster(
            settings.values, list(groups.get("control_plane", [])), list(groups.get("workers", []))
        )
        found = [*settings.broken, *problems(cluster), *unknown_variables(settings.names, settings.known)]
        if found:
            heading = (
                f"{len(found)} problem{'s' if len(found) > 1 else ''} in the inventory; no host was touched"
            )
            result.update(
                failed=True, msg="\n".join([f"{heading}:", *(f"- {sentence}" for sentence in found)])
            )
        result.update(changed=False, hosts=len(settings.values))
        return result
