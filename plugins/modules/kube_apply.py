#!/usr/bin/python
"""Ansible module: Kubernetes objects as they are to be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_apply
short_description: Apply Kubernetes objects on the server side, only where something differs
version_added: 0.1.0
author: Tortie contributors
description:
  - Asks the API server what it would make of the definitions (dry run), compares that with what it stores,
    and applies them when they differ. Fields that the definitions do not name are left alone.
  - Definitions of kinds and namespaces may stand beside the objects that need them.
  - Objects that are no longer among the definitions stay.
  - Talks to the API server itself, over one connection; kubectl only reads the kubeconfig.
options:
  definitions:
    description: The objects.
    type: list
    elements: dict
    default: []
  patches:
    description: Objects that are changed where they exist and are never created.
    type: list
    elements: dict
    default: []
    suboptions:
      definition:
        description: The object with the fields that it must have.
        type: dict
        required: true
      absent_means:
        description: By dotted path, the value that a missing field stands for.
        type: dict
        default: {}
      immutable:
        description:
          - Dotted paths of fields that cannot be changed.
          - Another value than the stored one is an error, found before anything is applied.
        type: list
        elements: str
        default: []
      remedy:
        description: What to do about a field that cannot be changed; ends the error message.
        type: str
      check_only:
        description: Whether to look for what cannot be changed, and to leave the rest to a later task.
        type: bool
        default: false
  kubeconfig:
    description: Credentials of an administrator.
    type: path
    default: /etc/kubernetes/admin.conf
  field_manager:
    description: The name under which the server remembers who set a field.
    type: str
    default: tortie
  wait:
    description: Wait until the applied kinds (CustomResourceDefinition) are served.
    type: bool
    default: true
  wait_timeout:
    description: Seconds that O(wait) may take.
    type: int
    default: 60
attributes:
  check_mode:
    description: Reports what would change; the server is only asked for dry runs.
    support: full
  diff_mode:
    description: One difference per object, without status and bookkeeping; values of a Secret are not shown.
    support: full
requirements:
  - kubectl on the host
  - Kubernetes 1.18 or later (server-side apply)
"""

EXAMPLES = r"""
- name: Keep a namespace and a quota in it
  tortie.cluster.kube_apply:
    definitions:
      - apiVersion: v1
        kind: Namespace
        metadata:
          name: web
      - apiVersion: v1
        kind: ResourceQuota
        metadata:
          name: pods
          namespace: web
        spec:
          hard:
            pods: "20"
"""

RETURN = r"""
created:
  description: Objects that did not exist.
  returned: success
  type: list
  elements: str
  sample: [DaemonSet calico-node in namespace kube-system]
updated:
  description: Objects that differed.
  returned: success
  type: list
  elements: str
unchanged:
  description: Objects that were as they are to be.
  returned: success
  type: list
  elements: str
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import kube_api
from ansible_collections.tortie.cluster.plugins.module_utils import kube_apply as core

# Seconds. Longer than the API server's own limit for a request, 60 s.
REQUEST_TIMEOUT = 70
ATTEMPTS = 5
PAUSE = 2.0
POLL_PAUSE = 0.2


class Server:
    """The API server with one kubeconfig. Failures end the module with a sentence."""

    def __init__(self, module: AnsibleModule, kubeconfig: str, manager: str) -> None:
        self.module = module
        self.manager = manager
        program = module.get_bin_path("kubectl", required=True, opt_dirs=["/usr/local/bin", "/opt/bin"])
        try:
            access = kube_api.access(kubeconfig, program, module.run_command, module.tmpdir)
        except kube_api.ApiError as error:
            module.fail_json(msg=f"{error}.")
        self.api = kube_api.Api(access, REQUEST_TIMEOUT, ATTEMPTS, PAUSE)

    def get(self, documents: list[core.Document]) -> dict[core.Key, core.Document]:
        """The stored objects of the same names; missing ones, also of unknown kinds, are left out."""
        return self._each("read the objects", documents, self._stored)

    def preview(self, documents: list[core.Document]) -> dict[core.Key, core.Document]:
        """What the server would store."""
        return self._each(
            "check the objects", documents, lambda item: self.api.apply(item, self.manager, dry_run=True)
        )

    def apply(self, documents: list[core.Document]) -> None:
        """Store them."""
        self._each("apply the objects", documents, lambda item: self.api.apply(item, self.manager))

    def _stored(self, document: core.Document) -> core.Document | None:
        try:
            return self.api.get(self.api.path_of(document))
        except kube_api.ApiError as error:
            if error.status == 404:
                return None
            raise

    def _each(
        self,
        action: str,
        documents: list[core.Document],
        call: Callable[[core.Document], core.Document | None],
    ) -> dict[core.Key, core.Document]:
        """One call per document: all refusals together, but no more calls to a server that is away."""
        found, refused = {}, []
        for document in documents:
            key = core.key_of(document)
            try:
                answer = call(document)
            except kube_api.ApiError as error:
                refused.append((str(key), error.status, str(error)))
                if error.transient or error.status in (0, 401):
                    break
                continue
            if answer is not None:
                found[key] = answer
        if refused:
            self.module.fail_json(msg=core.refusal(action, refused))
        return found

    def wait_served(self, kinds: list[core.Document], timeout: int) -> None:
        """Return when every CustomResourceDefinition among the documents is established and announced."""
        deadline = time.monotonic() + timeout
        pending = kinds
        while True:
            live = self.get(pending)
            stored = [live.get(core.key_of(item), item) for item in pending]
            pending = [item for item in stored if core.unready([item])]
            waiting = core.unready(pending) or self._unannounced(kinds)
            if not waiting:
                return
            if time.monotonic() > deadline:
                self.module.fail_json(msg=f"After {timeout} s (wait_timeout): {' '.join(waiting)}")
            time.sleep(POLL_PAUSE)

    def _unannounced(self, kinds: list[core.Document]) -> list[str]:
        found = []
        for version, kind in (pair for item in kinds for pair in core.kinds_of(item)):
            try:
                self.api.resource(version, kind)
            except kube_api.ApiError as error:
                found.append(f"{error}.")
        return found


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do what the parameters say; return the module's result."""
    definitions: list[core.Document] = module.params["definitions"]
    patches = [patch_of(item) for item in module.params["patches"]]
    wrong = core.problems([*definitions, *(patch.definition for patch in patches)])
    if wrong:
        module.fail_json(msg=f"The objects cannot be applied: {' '.join(wrong)}")
    kubeconfig = module.params["kubeconfig"]
    if not Path(kubeconfig).exists():
        return without_cluster(module, kubeconfig, definitions)
    server = Server(module, kubeconfig, module.params["field_manager"])
    return reconcile(module, server, definitions, patches)


def patch_of(item: dict[str, Any]) -> core.Patch:
    """One element of parameter patches."""
    patch = core.Patch(
        item["definition"], item["absent_means"], item["immutable"], check_only=item["check_only"]
    )
    return replace(patch, remedy=item["remedy"]) if item["remedy"] else patch


def without_cluster(
    module: AnsibleModule, kubeconfig: str, definitions: list[core.Document]
) -> dict[str, Any]:
    """In check mode a cluster that is not there yet would get everything; otherwise it is an error."""
    if not module.check_mode:
        module.fail_json(
            msg=f"kubeconfig {kubeconfig} does not exist; run this on a control plane, after kubeadm init."
        )
    return result(core.Plan(created=[core.key_of(item) for item in definitions]))


def reconcile(
    module: AnsibleModule,
    server: Server,
    definitions: list[core.Document],
    patches: list[core.Patch],
) -> dict[str, Any]:
    """Look at everything, refuse what cannot be, then write: first what other objects need, then the rest."""
    first, later = core.split([*definitions, *(patch.definition for patch in patches)])
    live = server.get(first)
    missing = {key.name for key in map(core.key_of, first) if key not in live}
    reachable = [item for item in later if not needs(item, missing, first)]
    live.update(server.get(reachable))
    conflicts = [
        sentence
        for patch in patches
        if core.key_of(patch.definition) in live
        for sentence in core.immutable_conflicts(patch, live[core.key_of(patch.definition)])
    ]
    if conflicts:
        module.fail_json(msg=" ".join(conflicts))

    wanted_patches = {core.key_of(patch.definition): patch for patch in patches}
    plan = core.Plan()
    for stage in (first, later):
        todo = []
        for item in stage:
            patch = wanted_patches.get(core.key_of(item))
            if patch is None:
                todo.append(item)
            elif core.key_of(item) in live and not patch.check_only:
                if core.patch_differences(patch, live[core.key_of(item)]):
                    todo.append(item)
                else:
                    plan.unchanged.append(core.key_of(item))
        if module.check_mode:
            unknown = [item for item in todo if needs(item, missing, first)]
            todo = [item for item in todo if item not in unknown]
            plan.extend(core.compare({core.key_of(item): item for item in unknown}, {}))
        step = core.compare(server.preview(todo), live)
        plan.extend(step)
        if not module.check_mode:
            differing = {*step.created, *step.updated}
            changing = [item for item in todo if core.key_of(item) in differing]
            server.apply(changing)
            if module.params["wait"]:
                server.wait_served(unserved(todo, changing, live), module.params["wait_timeout"])
    return result(plan)


def unserved(
    documents: list[core.Document], changing: list[core.Document], live: dict[core.Key, core.Document]
) -> list[core.Document]:
    """The kinds that may not be served: those just applied, and those that were not established before."""
    kinds = [item for item in documents if item["kind"] == core.CRD]
    return [item for item in kinds if item in changing or core.unready([live[core.key_of(item)]])]


def needs(item: core.Document, missing: set[str], first: list[core.Document]) -> bool:
    """Whether the kind or the namespace of an object is among the definitions and not on the server yet."""
    if str(item["metadata"].get("namespace") or "") in missing & names_of("Namespace", first):
        return True
    return any(
        definition["kind"] == core.CRD
        and definition["metadata"]["name"] in missing
        and definition["spec"]["group"] == core.group_of(item)
        and definition["spec"]["names"]["kind"] == item["kind"]
        for definition in first
    )


def names_of(kind: str, documents: list[core.Document]) -> set[str]:
    """Names of the documents of one kind."""
    return {str(item["metadata"]["name"]) for item in documents if item["kind"] == kind}


def result(plan: core.Plan) -> dict[str, Any]:
    """The module's answer."""
    return {
        "changed": plan.changed,
        "created": [str(key) for key in plan.created],
        "updated": [str(key) for key in plan.updated],
        "unchanged": [str(key) for key in plan.unchanged],
        "diff": plan.differences,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "definitions": {"type": "list", "elements": "dict", "default": []},
            "patches": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "definition": {"type": "dict", "required": True},
                    "absent_means": {"type": "dict", "default": {}},
                    "immutable": {"type": "list", "elements": "str", "default": []},
                    "remedy": {"type": "str"},
                    "check_only": {"type": "bool", "default": False},
                },
            },
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
            "field_manager": {"type": "str", "default": "tortie"},
            "wait": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    module.exit_json(**run(module))


if __name__ == "__main__":
    main()
