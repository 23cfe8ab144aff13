#!/usr/bin/python
# Copyright: Tortie contributors
# Apache License 2.0 (see LICENSE)
"""Documentation of the action of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: judge_hosts
short_description: Compare the machines with what the inventory asks of them
description:
  - Takes what M(tortie.cluster.host_probe) found on each host and fails with every problem of every
    host in one message.
  - Checks reachability, operating system, kernel features, encapsulation, MTU, addresses, address
    detection, ports, memory, disk and clock.
  - Runs on the controller and opens no connection; use it with C(run_once).
options:
  probes:
    description: >-
      The registered results of M(tortie.cluster.host_probe) by host name, those of unreachable hosts
      too.
    type: dict
    required: true
  bundle_architecture:
    description: Go's name of the architecture of the bundle to install from; empty when there is none.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
author: Tortie contributors
"""

EXAMPLES = r"""
- name: Look at the machines
  tortie.cluster.host_probe:
  register: probe
  ignore_unreachable: true

- name: Judge them
  tortie.cluster.judge_hosts:
    probes: >-
      "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars,
      'probe'))) }}"
  run_once: true
"""
