#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Make and delete bootstrap tokens."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bootstrap_token
short_description: Make or delete a token with which nodes join
description:
  - Runs on a control plane node. The token is made by kubeadm itself and never stands in a command
    line; run the task with C(no_log).
options:
  state:
    description: V(present) makes a new token, V(absent) deletes the one with O(token_id).
    type: str
    choices: [present, absent]
    default: present
  minutes:
    description: How long the token is valid.
    type: int
    default: 15
  token_id:
    description: The public part of the token to delete.
    type: str
attributes:
  check_mode:
    support: full
    description: No token is made; the one returned opens nothing.
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Make a token
  tortie.cluster.bootstrap_token:
    minutes: 15
  register: made
  no_log: true

- name: Delete it
  tortie.cluster.bootstrap_token:
    state: absent
    token_id: "{{ made.token_id }}"
"""

RETURN = r"""
token:
  description: The token.
  returned: when state is present
  type: str
token_id:
  description: Its public part.
  returned: when state is present
  type: str
"""

import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tortie.cluster.plugins.module_utils import kubeadm_run

# cluster-bootstrap/token/api: the id has 6 characters, the secret 16.
TOKEN = re.compile(r"\b([a-z0-9]{6})\.[a-z0-9]{16}\b")
TOKEN_ID = re.compile(r"[a-z0-9]{6}")
UNUSABLE = "000000." + 16 * "0"
SECONDS = 60


def kubeadm_token(*arguments: str) -> str:
    """What `kubeadm token` prints on standard output. Raises KubeadmError; its message has no token in it."""
    command = ["kubeadm", f"--kubeconfig={kubeadm_run.ADMIN_CONF}", "token", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=kubeadm_run.environment(),
            check=False,
        )
    except FileNotFoundError as error:
        raise kubeadm_run.KubeadmError(
            "kubeadm is not installed on this host; run the role kubernetes before this one."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise kubeadm_run.KubeadmError(
            f"'kubeadm token {arguments[0]}' did not end within {SECONDS} seconds."
        ) from error
    if done.returncode != 0:
        raise kubeadm_run.KubeadmError(
            f"'kubeadm token {arguments[0]}' failed: {TOKEN.sub('(token)', done.stderr.strip())[-600:]}"
        )
    return done.stdout


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "minutes": {"type": "int", "default": 15},
            "token_id": {"type": "str", "no_log": False},
        },
        required_if=[("state", "absent", ("token_id",))],
        supports_check_mode=True,
    )
    token_id = module.params["token_id"]
    if module.params["state"] == "absent" and not TOKEN_ID.fullmatch(token_id):
        module.fail_json(msg=f"token_id is {token_id!r}, but must have 6 lower case letters and digits.")
    if module.check_mode:
        module.exit_json(changed=True, token=UNUSABLE, token_id=UNUSABLE.partition(".")[0])
    try:
        if module.params["state"] == "absent":
            kubeadm_token("delete", token_id)
            module.exit_json(changed=True)
        match = TOKEN.search(kubeadm_token("create", f"--ttl={module.params['minutes']}m"))
    except kubeadm_run.KubeadmError as error:
        module.fail_json(msg=str(error))
    if match is None:
        module.fail_json(msg="'kubeadm token create' printed no token.")
    module.exit_json(changed=True, token=match.group(0), token_id=match.group(1))


if __name__ == "__main__":
    main()
