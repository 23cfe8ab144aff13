"""Parsing of requests: everything wrong gets the code that the CNI SPEC gives it, and a sentence."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cni.requests import ENVIRONMENT, parse, payload, refusal
from tortie.cni import config, netconf
from tortie.cni.config import PodReference
from tortie.cni.errors import CNIError


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
        ({"CNI_COMMAND": "FROB"}, {}, 4, "CNI_COMMAND is 'FROB'"),
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
        ({}, {"cniVersion": "1.2.0"}, 1, "cniVersion is 1.2.0"),
        ({"CNI_COMMAND": "GC"}, {"cniVersion": "1.0.0"}, 1, "no GC"),
        ({"CNI_COMMAND": "STATUS"}, {"cniVersion": "0.4.0"}, 1, "no STATUS"),
        ({"CNI_COMMAND": "GC"}, {"cniVersion": "1.1.0"}, 7, "cni.dev/valid-attachments"),
        ({"CNI_COMMAND": "CHECK"}, {"cniVersion": "0.3.1"}, 1, "no CHECK"),
        ({}, {"cniVersion": ..., "name": ...}, 7, "lacks cniVersion and name"),
        ({}, {"type": ...}, 7, "lacks type"),
        ({}, {"name": "a b"}, 7, "name is 'a b'"),
        ({}, {"mtu": -1}, 7, "mtu is -1"),
        ({}, {"mtu": 70000}, 7, "mtu is 70000"),
        ({}, {"mtu": "1440"}, 7, "mtu"),
        ({}, {"ipam": []}, 7, "ipam"),
        ({}, {"ipam": {"assign_ipv4": "false"}}, 7, "both false"),
        ({}, {"ipam": {"assign_ipv6": "maybe"}}, 7, "ipam.assign_ipv6 is 'maybe'"),
        ({}, {"num_queues": 5000}, 7, "num_queues is 5000"),
        ({}, {"policy_setup_timeout_seconds": -1}, 7, "policy_setup_timeout_seconds is -1"),
        ({}, {"readiness_gates": ["localhost:80"]}, 7, "readiness_gates holds 'localhost:80'"),
        ({}, {"device_type": "netkit"}, 2, "device_type is 'netkit'"),
        ({}, {"device_type": "frob"}, 7, "device_type is 'frob'"),
        ({}, {"dataplane_options": {"type": "grpc"}}, 2, "dataplane_options.type is 'grpc'"),
        ({}, {"policy": {"type": "frob"}}, 7, "policy.type is 'frob'"),
        ({}, {"datastore_type": "etcdv3"}, 2, "datastore_type is 'etcdv3'"),
        ({}, {"datastore_type": "consul"}, 7, "datastore_type is 'consul'"),
        ({}, {"calico_api_group": "projectcalico.org/v3"}, 2, "calico_api_group is"),
        ({}, {"args": {"org.apache.mesos": {"x": 1}}}, 2, "Mesos"),
        ({"K": "v", "CNI_ARGS": "K8S_POD_NAME=a/b;K8S_POD_NAMESPACE=c"}, {}, 4, "no object's name"),
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


@pytest.mark.parametrize("key", netconf.REFUSED)
def test_what_is_not_supported_is_refused_by_key_and_value_and_only_when_it_is_set(key: str) -> None:
    fields: dict[str, Any] = {key: "some-value"}
    with pytest.raises(CNIError) as caught:
        parse(**fields)
    assert caught.value.code == 2
    assert f"{key} is 'some-value'" in str(caught.value)
    assert parse({"CNI_COMMAND": "DEL"}, **fields).command == "DEL"
    fields[key] = ""
    assert parse(**fields).container_id


def test_a_configuration_written_by_calico_is_accepted() -> None:
    request = parse(
        log_level="info",
        log_file_path="/var/log/calico/cni/cni.log",
        datastore_type="kubernetes",
        nodename="worker-01",
        nodename_file_optional=False,
        require_mtu_file=True,
        mtu=0,
        ipam={"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
        container_settings={"allow_ip_forwarding": False},
        policy={"type": "k8s", "k8s_api_root": "https://10.96.0.1:443"},
        kubernetes={"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        feature_control={"ip_addrs_no_ipam": True, "floating_ips": True},
        capabilities={"portMappings": True},
        policy_setup_timeout_seconds=5,
        endpoint_status_dir="/var/run/calico/endpoint-status",
        etcd_endpoints=None,
    )
    assert request.config.families == {4, 6}
    assert request.config.policy_setup_timeout_seconds == 5
    assert not request.config.delegates


def test_status_and_gc_need_no_container() -> None:
    bare = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": "", "CNI_ARGS": ""}
    assert parse(bare | {"CNI_COMMAND": "STATUS"}, cniVersion="1.1.0").command == "STATUS"
    fields = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    attachments = parse(bare | {"CNI_COMMAND": "GC"}, **fields).config.valid_attachments or []
    assert [(item.container_id, item.ifname) for item in attachments] == [("c1", "eth0")]


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(CNIError):
        config.parse(payload(ENVIRONMENT, b"[" * 100_000))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    {field.encode_name for field in msgspec.structs.fields(netconf.NetworkConfig)} | set(netconf.REFUSED)
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6), st.sampled_from(sorted(config.COMMANDS)))
def test_no_configuration_causes_another_error(fields: dict[str, Any], command: str) -> None:
    assert refusal(lambda: parse({"CNI_COMMAND": command}, **fields)) in (0, 1, 2, 4, 6, 7)


@given(st.text(max_size=60))
def test_no_arguments_cause_another_error(text: str) -> None:
    if "\0" in text:
        return
    assert refusal(lambda: parse({"CNI_ARGS": text})) in (0, 4)
