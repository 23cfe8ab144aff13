"""The reference cluster's inventory says what the reference cluster is."""

from pathlib import Path
from typing import Any

import yaml

REFERENCE = Path(__file__).parents[3] / "inventory" / "reference"


def read(name: str) -> Any:
    return yaml.safe_load((REFERENCE / name).read_text())


def test_machines_have_the_reference_names_and_addresses() -> None:
    groups = read("hosts.yml")["all"]["children"]["cluster"]["children"]
    addresses = {
        host: settings["kubernetes_node_ip"]
        for group in groups.values()
        for host, settings in group["hosts"].items()
    }
    assert addresses == {"master-01": "10.30.200.1", "worker-01": "10.30.200.2"}


def test_network_is_the_reference_network() -> None:
    variables = read("group_vars/cluster.yml")
    wanted = {
        "kubernetes_service_cidr": "10.96.0.0/12",
        "control_plane_schedulable": True,
        "tortie_ipv4pool_cidr": "10.5.0.0/16",
        "tortie_ipv4pool_block_size": 26,
        "tortie_encapsulation": "ipip",
        "tortie_encapsulation_mode": "always",
        "tortie_mtu": 1440,
        "tortie_ip_autodetection_method": "interface=eth0",
    }
    assert {name: variables[name] for name in wanted} == wanted


def test_etcd_is_given_time_in_milliseconds() -> None:
    # etcd refuses an election time-out below five heartbeats.
    arguments = read("group_vars/cluster.yml")["control_plane_etcd_args"]
    assert int(arguments["election-timeout"]) >= 5 * int(arguments["heartbeat-interval"])
