"""Documentation that the modules of the container lab share."""

from __future__ import annotations


class ModuleDocFragment:
    """The lab: name, folder, network, nodes."""

    DOCUMENTATION = r"""
options:
  name:
    description: Name of the lab. It prefixes namespaces and containers, so that labs can coexist.
    type: str
    required: true
  directory:
    description: Absolute path of the folder with the lab's keys, configuration and volumes.
    type: path
    required: true
  gateway:
    description: Address with prefix length of the nodes' gateway, the lab's bridge.
    type: str
    default: 10.30.200.254/24
  nodes:
    description: The machines of the lab.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Host name, as in the inventory.
        type: str
        required: true
      address:
        description: IPv4 address on the lab's network.
        type: str
        required: true
  state:
    description: Whether it should exist.
    type: str
    choices: [present, absent]
    default: present
"""
