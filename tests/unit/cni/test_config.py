"""Parsing of requests: everything wrong gets the code that the CNI SPEC gives it, and a sentence."""

import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.cni import config
from tortie.cni.config import PodReference
from tortie.cni.errors import CNIError

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "0123456789abcdef",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_TYPE": "calico",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u-1",
}
CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calico"}


def payload(environment: dict[str, str], text: bytes) -> bytes:
    return b"\0".join(f"{key}={value}".encode() for key, value in environment.items()) + b"\0\0" + text


def parse(environment: dict[str, str] | None = None, **fields: Any) -> config.Request:
    text = json.dumps({key: value for key, value in (CONFIG | fields).items() if value is not ...}).encode()
    return config.parse(payload(ENVIRONMENT | (environment or {}), text))


def test_a_request_is_read_in_full() -> None:
    request = parse(mtu=1440, container_settings={"allow_ip_forwarding": True}, log_level="debug")
    assert (request.command, request.plugin, request.ifname) == ("ADD", "calico", "eth0")
    assert request.pod == PodReference("default", "web-0", "u-1")
    assert request.config.mtu == 1440
    assert request.config.container_settings.allow_ip_forwarding


def test_a_container_without_a_pod_is_allowed() -> None:
    assert parse({"CNI_ARGS": ""}).pod is None
    assert parse({"CNI_ARGS": "IgnoreUnknown=1;FOO=bar"}).pod is None


@pytest.mark.parametrize(
    ("environment", "fields", "code", "words"),
    [
        ({"CNI_COMMAND": "FROB"}, {}, 4, "CNI_COMMAND is FROB"),
        ({"CNI_COMMAND": ""}, {}, 4, "CNI_COMMAND is not set"),
        ({"CNI_CONTAINERID": "", "CNI_NETNS": ""}, {}, 4, "CNI_CONTAINERID and CNI_NETNS"),
        ({"CNI_CONTAINERID": "../etc"}, {}, 4, "CNI_CONTAINERID is '../etc'"),
        ({"CNI_IFNAME": "a/b"}, {}, 4, "CNI_IFNAME is 'a/b'"),
        ({"CNI_IFNAME": "sixteen-letters-"}, {}, 4, "1 to 15 characters"),
        ({"CNI_IFNAME": ".."}, {}, 4, "CNI_IFNAME is '..'"),
        ({"CNI_ARGS": "K8S_POD_NAME"}, {}, 4, "each item must be KEY=VALUE"),
        ({"CNI_ARGS": "K8S_POD_NAME=a"}, {}, 4, "given together"),
        ({"CNI_TYPE": "bridge"}, {}, 4, "'bridge'"),
        ({}, {"cniVersion": "0.2.0"}, 1, "cniVersion is 0.2.0"),
        ({}, {"cniVersion": "1.1.0"}, 1, "cniVersion is 1.1.0"),
        ({"CNI_COMMAND": "CHECK"}, {"cniVersion": "0.3.1"}, 1, "no CHECK"),
        ({}, {"cniVersion": ..., "name": ...}, 7, "lacks cniVersion and name"),
        ({}, {"type": ...}, 7, "lacks type"),
        ({}, {"name": "a b"}, 7, "name is 'a b'"),
        ({}, {"mtu": -1}, 7, "mtu is -1"),
        ({}, {"mtu": 70000}, 7, "mtu is 70000"),
        ({}, {"mtu": "1440"}, 7, "mtu"),
        ({}, {"ipam": []}, 7, "ipam"),
        ({}, {"ipam": {"type": "host-local"}}, 2, "ipam.type is 'host-local'"),
        ({}, {"ipam": {"assign_ipv6": "true"}}, 2, "assign_ipv6"),
    ],
)
def test_what_is_wrong_is_named_with_the_code_of_the_spec(
    environment: dict[str, str], fields: dict[str, Any], code: int, words: str
) -> None:
    with pytest.raises(CNIError) as caught:
        parse(environment, **fields)
    assert caught.value.code == code
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code"),
    [(b"", 6), (b"{", 6), (b"\xff", 6), (b"[]", 7), (b'"text"', 7), (b"null", 7), (b"{}", 7)],
)
def test_malformed_standard_input(text: bytes, code: int) -> None:
    with pytest.raises(CNIError) as caught:
        config.parse(payload(ENVIRONMENT, text))
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_no_bytes_whatever_cause_another_error(data: bytes) -> None:
    with pytest.raises(CNIError):
        config.parse(data)


@pytest.mark.parametrize(("version", "marked"), [("0.3.1", True), ("0.4.0", True), ("1.0.0", False)])
def test_the_result_has_the_shape_of_the_version(version: str, marked: bool) -> None:
    request = parse(cniVersion=version)
    interfaces = [{"name": "cali1"}, {"name": "eth0", "sandbox": "/run/netns/x"}]
    answer = json.loads(config.result(request, IPv4Address("10.5.0.1"), interfaces))
    assert answer["cniVersion"] == version
    assert answer["interfaces"] == interfaces
    expected: dict[str, Any] = {"address": "10.5.0.1/32", "interface": 1}
    assert answer["ips"] == [expected | {"version": "4"} if marked else expected]


def test_the_result_of_the_address_plugin_names_no_interface() -> None:
    answer = json.loads(config.result(parse(), IPv4Address("10.5.0.1"), []))
    assert answer == {"cniVersion": "1.0.0", "ips": [{"address": "10.5.0.1/32"}], "dns": {}}


def test_check_takes_the_address_from_prev_result() -> None:
    check = {"CNI_COMMAND": "CHECK"}
    request = parse(check, prevResult={"ips": [{"address": "10.5.0.1/32"}]})
    assert config.previous_address(request) == IPv4Address("10.5.0.1")
    absent: list[Any] = [..., {"ips": []}, {"ips": [{"address": "nonsense"}]}]
    for previous in absent:
        with pytest.raises(CNIError) as caught:
            config.previous_address(parse(check, prevResult=previous))
        assert caught.value.code == 7
