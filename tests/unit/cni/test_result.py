"""What ADD answers, and what CHECK reads of it."""

import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from tests.unit.cni.requests import parse
from tortie.cni import result
from tortie.cni.errors import CNIError
from tortie.cni.result import Assignment
from tortie.dataplane.workload_link import WorkloadEnds

BOTH = Assignment((IPv4Address("10.5.0.1"), IPv6Address("fd00::1")))
ENDS = WorkloadEnds("cali1", "ee:ee:ee:ee:ee:ee", 5, "0a:00:00:00:00:01", 2)


@pytest.mark.parametrize(
    ("version", "families", "mtu"),
    [("0.3.1", True, False), ("0.4.0", True, False), ("1.0.0", False, False), ("1.1.0", False, True)],
)
def test_the_result_has_the_shape_of_the_version(version: str, families: bool, mtu: bool) -> None:
    answer = json.loads(result.render(parse(cniVersion=version), BOTH, ENDS, 1440))
    assert answer["cniVersion"] == version
    assert [item["address"] for item in answer["ips"]] == ["10.5.0.1/32", "fd00::1/128"]
    assert [item["interface"] for item in answer["ips"]] == [1, 1]
    assert [item.get("version") for item in answer["ips"]] == (["4", "6"] if families else [None, None])
    assert not any("gateway" in item for item in answer["ips"])
    names = [(item["name"], item["mac"], item.get("sandbox")) for item in answer["interfaces"]]
    assert names == [
        ("cali1", "ee:ee:ee:ee:ee:ee", None),
        ("eth0", "0a:00:00:00:00:01", "/run/netns/x"),
    ]
    assert [item.get("mtu") for item in answer["interfaces"]] == ([1440, 1440] if mtu else [None, None])


def test_the_result_of_the_address_plugin_names_no_interface() -> None:
    answer = json.loads(result.render(parse(), BOTH, None, 0))
    addresses = [{"address": "10.5.0.1/32"}, {"address": "fd00::1/128"}]
    assert answer == {"cniVersion": "1.0.0", "ips": addresses, "dns": {}}


def test_check_takes_its_own_addresses_from_prev_result() -> None:
    previous = {
        "interfaces": [{"name": "cali1"}, {"name": "eth0", "sandbox": "/run/netns/x"}, {"name": "other"}],
        "ips": [
            {"address": "fd00::1/128", "interface": 1},
            {"address": "10.9.9.9/24", "interface": 2},
            {"address": "10.5.0.1/32", "interface": 1},
        ],
    }
    assert result.previous_addresses(parse(prevResult=previous)) == BOTH.addresses


@pytest.mark.parametrize("previous", [..., {"ips": []}, {"ips": [{"address": "nonsense"}]},
    {"ips": [{"address": "10.5.0.1/32", "interface": 7}]}])  # fmt: skip
def test_check_without_an_address_of_ours_is_refused(previous: Any) -> None:
    with pytest.raises(CNIError) as caught:
        result.previous_addresses(parse({"CNI_COMMAND": "CHECK"}, prevResult=previous))
    assert caught.value.code == 7
