import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.model import names

# RFC 1123 subdomain, as Kubernetes checks object names.
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
node_names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("cidr", "name"),
    [
        ("10.5.0.0/26", "10-5-0-0-26"),
        ("192.168.221.192/26", "192-168-221-192-26"),
        ("fd00::/122", "fd00---122"),
    ],
)
def test_cidr_name_replaces_every_character_that_a_name_cannot_have(cidr: str, name: str) -> None:
    assert names.cidr_name(cidr) == name


def test_short_affinity_name_is_node_and_block() -> None:
    assert names.affinity_name("worker-01", "10.5.0.64/26") == "worker-01-10-5-0-64-26"


def test_long_affinity_name_is_cut_and_ends_in_a_digest_of_the_whole() -> None:
    node, block = "n" * 253, "10-5-0-64-26"
    digest = hashlib.sha256(f"{node}+{block}".encode()).hexdigest()[:11]
    assert names.affinity_name(node, "10.5.0.64/26") == f"{'n' * (252 - len(block) - 13)}-{block}-{digest}"


def test_affinity_name_is_cut_from_253_characters_on() -> None:
    block = "10-5-0-64-26"
    longest = "n" * (252 - len(block) - 1)
    assert names.affinity_name(longest, "10.5.0.64/26") == f"{longest}-{block}"
    assert names.affinity_name(longest + "n", "10.5.0.64/26") != f"{longest}n-{block}"


@given(node_names, node_names)
def test_affinity_names_of_different_nodes_differ_and_fit(one: str, other: str) -> None:
    left, right = names.affinity_name(one, "10.5.0.64/26"), names.affinity_name(other, "10.5.0.64/26")
    assert (left == right) is (one == other)
    assert len(left) < 253


def test_affinity_labels_have_the_hash_calico_looks_for() -> None:
    labels = names.affinity_labels("master-01", "10.5.0.0/26")
    # printf master-01 | openssl dgst -sha3-256 -binary | base32 | tr -d =
    assert labels == {
        "projectcalico.org/hostname-hash": "6XI5YD76EUC4XBWWSTXLT5OYHICCDCUC6VTU3GX5ZPGINH32WA2A",
        "projectcalico.org/affinity-type": "host",
        "projectcalico.org/ip-version": "4",
    }


@given(node_names)
def test_affinity_labels_are_valid_label_values(node: str) -> None:
    for value in names.affinity_labels(node, "10.5.0.0/26").values():
        assert re.fullmatch(r"[A-Za-z0-9]{1,63}", value)


def test_veth_name_is_cali_and_eleven_hexadecimal_characters_of_the_pods_sha1() -> None:
    # printf default.web | sha1sum | cut -c1-11
    assert names.veth_name("default", "web") == "cali68caf03a5f4"


@given(st.text(min_size=1, max_size=63), st.text(min_size=1, max_size=253))
def test_veth_name_fits_a_device_name(namespace: str, pod: str) -> None:
    assert re.fullmatch(r"cali[0-9a-f]{11}", names.veth_name(namespace, pod))


def test_veth_name_of_a_plain_container_starts_like_its_id() -> None:
    assert names.veth_name_for_container("0123456789abcdef") == "cali0123456789a"


def test_handle_ids_are_calicos() -> None:
    assert names.handle_id("k8s-pod-network", "abc") == "k8s-pod-network.abc"
    assert names.tunnel_handle_id("vxlan", "n1") == "vxlan-tunnel-addr-n1"
    assert names.tunnel_handle_id("ipip", "n1") == "ipip-tunnel-addr-n1"
    assert names.handle_name("K8s.ABC") == "k8s.abc"


@given(node_names)
def test_vtep_mac_is_unicast_locally_administered_and_made_of_the_nodes_sha1(node: str) -> None:
    octets = bytes.fromhex(names.vtep_mac(node).replace(":", ""))
    assert octets == b"f" + hashlib.sha1(node.encode()).digest()[:5]
    assert octets[0] & 0b11 == 0b10


def test_workload_endpoint_name_doubles_dashes_inside_segments() -> None:
    assert names.workload_endpoint_name("worker-01", "web-a", "eth0") == "worker--01-k8s-web--a-eth0"


@given(node_names, node_names, node_names, node_names)
def test_workload_endpoint_names_do_not_collide(node: str, pod: str, node2: str, pod2: str) -> None:
    if any(text.endswith("-") or text.startswith("-") for text in (node, pod, node2, pod2)):
        return
    same = names.workload_endpoint_name(node, pod, "eth0") == names.workload_endpoint_name(
        node2, pod2, "eth0"
    )
    assert same is ((node, pod) == (node2, pod2))
