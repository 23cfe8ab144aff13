#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_inventory
short_description: Judge the inventory before any host is touched
description:
  - Looks at the variables of all hosts of group C(cluster), with the roles' defaults under them, and
    fails with every problem in
    one message. Each problem is a sentence with the variable, its value, what is allowed, and what to do.
  - Checks groups, names and addresses of the nodes, Kubernetes version and endpoint, ranges and their
    overlaps, block size, encapsulation,
    MTU, address detection, and variables that no role reads.
  - Runs on the controller and opens no connection; use it with C(run_once).
options: {}
attributes:
  check_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Judge the inventory
  tortie.cluster.validate_inventory:
  run_once: true
"""

RETURN = r"""
hosts:
  description: How many hosts were looked at.
  returned: always
  type: int
"""
