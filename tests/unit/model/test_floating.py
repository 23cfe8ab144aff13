"""The annotation that asks for floating addresses."""

import json
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tortie.cli.native import endpoint_document
from tortie.model.constants import ANNOTATION_FLOATING
from tortie.model.endpoints import workload_endpoint
from tortie.model.floating import FloatingError, is_routable, parse_floating
from tortie.model.resources import Pod


def test_addresses_of_both_families_are_read_in_order() -> None:
    text = '["203.0.113.9", "2001:DB8::9", "203.0.113.1"]'
    assert list(map(str, parse_floating(text))) == ["203.0.113.9", "2001:db8::9", "203.0.113.1"]
    assert parse_floating("[]") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("203.0.113.9", "JSON list"),
        ('{"a": 1}', "JSON list"),
        ("[1]", "JSON list"),
        ("[" * 100_000, "JSON list"),
        ('["203.0.113.0/24"]', "without prefix length"),
        ('["203.0.113.300"]', "is not an address"),
        ('["203.0.113.9","203.0.113.9"]', "twice"),
        ('["2001:db8::9","2001:DB8:0::9"]', "twice"),
        ('["fe80::1%eth0"]', "zone"),
        *((f'["{address}"]', "unicast") for address in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1")),
        *((f'["{address}"]', "unicast") for address in ("224.0.0.1", "255.255.255.255", "::", "::1")),
        *((f'["{address}"]', "unicast") for address in ("fe80::1", "ff02::1", "::ffff:203.0.113.9")),
    ],
)
def test_what_cannot_float_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(FloatingError, match=words) as caught:
        parse_floating(text)
    assert ANNOTATION_FLOATING in str(caught.value)


@given(st.text() | st.lists(st.text() | st.ip_addresses().map(str) | st.none()).map(json.dumps))
def test_no_text_whatever_causes_another_error(text: str) -> None:
    try:
        found = parse_floating(text)
    except FloatingError:
        return
    assert len(set(found)) == len(found)
    assert all(map(is_routable, found))


def pod(annotation: str, *addresses: str) -> Pod:
    body: dict[str, Any] = {
        "metadata": {"name": "web", "namespace": "shop", "annotations": {ANNOTATION_FLOATING: annotation}},
        "spec": {"nodeName": "worker-01"},
        "status": {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]},
    }
    return msgspec.convert(body, Pod)


def test_an_endpoint_shows_which_of_the_pods_addresses_each_leads_to() -> None:
    both = pod('["203.0.113.9","2001:db8::9"]', "10.5.0.3", "fd00::3")
    document = endpoint_document(both)
    assert document is not None
    assert document["spec"]["ipNATs"] == [
        {"internalIP": "10.5.0.3", "externalIP": "203.0.113.9"},
        {"internalIP": "fd00::3", "externalIP": "2001:db8::9"},
    ]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [('["203.0.113.9","2001:db8::9"]', ["203.0.113.9"]), ("nonsense", []), ("", []), ("[]", [])],
)
def test_an_endpoint_without_that_family_or_with_an_unreadable_annotation_stays_an_endpoint(
    annotation: str, expected: list[str]
) -> None:
    endpoint = workload_endpoint(pod(annotation, "10.5.0.3"))
    assert endpoint is not None
    assert [nat.external for nat in endpoint.spec.ip_nats] == expected
    assert all(ip_address(nat.internal) == ip_address("10.5.0.3") for nat in endpoint.spec.ip_nats)
