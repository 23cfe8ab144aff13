# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Compare the machines with the inventory on the controller (see the module of the same name for the
documentation).
"""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.tortie.cluster.plugins.module_utils.host_judgement import (
    architecture_problem,
    clock_problem,
    cluster_problems,
    failed_probe_problem,
    host_problems,
    unreachable_problem,
)
from ansible_collections.tortie.cluster.plugins.plugin_utils.cluster_settings import collect


class ActionModule(ActionBase):
    """Runs without a connection."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every problem of every host at once."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        probes: dict[str, dict[str, Any]] = self._task.args["probes"]
        settings = collect(list(probes), variables, self._templar, self._loader)
        found: list[str] = []
        facts_by_host: dict[str, dict[str, Any]] = {}
        for host, probe in probes.items():
            own = settings.values[host]
            if probe.get("unreachable"):
                address = variables["hostvars"][host].get("ansible_host", host)
                found.append(
                    unreachable_problem(host, str(address), str(probe.get("msg", "no reason given")))
                )
                continue
            if probe.get("failed"):
                found.append(
                    failed_probe_problem(host, str(probe.get("msg", "")), str(probe.get("module_stderr", "")))
                )
                continue
            facts = probe["ansible_facts"]["host_probe"]
            facts_by_host[host] = facts
            found += architecture_problem(host, facts, str(self._task.args.get("bundle_architecture", "")))
            found += host_problems(host, facts, own, host in variables["groups"]["control_plane"])
            # The clock was read when the probe ended, a little before now.
            late = clock_problem(host, float(facts["clock"]) - time.time())
            found += [late] if late else []
        first = next(iter(settings.values.values()), {})
        found += cluster_problems(facts_by_host, first)
        if found:
            heading = (
                f"{len(found)} problem{'s' if len(found) > 1 else ''} on the hosts; nothing was changed on"
                " any of them"
            )
            result.update(
                failed=True, msg="\n".join([f"{heading}:", *(f"- {sentence}" for sentence in found)])
            )
        result.update(changed=False)
        return result
