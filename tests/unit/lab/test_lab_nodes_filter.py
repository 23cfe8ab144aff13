"""The lab's nodes out of inventory variables."""

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tortie.cluster.plugins.filter.lab import lab_nodes


def test_node_address_comes_before_the_connections_address() -> None:
    variables = {"a": {"kubernetes_node_ip": "10.30.200.1", "ansible_host": "192.0.2.1"}}
    assert lab_nodes(["a"], variables) == [{"name": "a", "address": "10.30.200.1"}]


def test_connections_address_serves_when_no_node_address_is_set() -> None:
    assert lab_nodes(["a"], {"a": {"ansible_host": "10.30.200.1"}}) == [
        {"name": "a", "address": "10.30.200.1"}
    ]


def test_host_without_address_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="host b has no address"):
        lab_nodes(["a", "b"], {"a": {"ansible_host": "10.30.200.1"}, "b": {}})
