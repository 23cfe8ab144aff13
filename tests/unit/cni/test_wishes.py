"""What a container gets: annotations before arguments before configuration."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cni.requests import ENVIRONMENT, parse, refusal
from tortie.cni import wishes
from tortie.cni.errors import CNIError
from tortie.cni.wishes import Wish, wish
from tortie.model.constants import ANNOTATION_FLOATING

POOLS4, POOLS6 = wishes.ANNOTATION_POOLS[4], wishes.ANNOTATION_POOLS[6]
NO_IPAM: dict[str, Any] = {"feature_control": {"ip_addrs_no_ipam": True}}
FLOATING: dict[str, Any] = {"feature_control": {"floating_ips": True}}
BOTH_FAMILIES = {"ipam": {"assign_ipv6": "true"}}


def test_without_a_word_it_is_one_ipv4_address_of_any_pool() -> None:
    assert wish(parse()) == Wish(frozenset({4}))


def test_pools_of_the_pod_win_over_those_of_the_namespace_and_the_configuration() -> None:
    request = parse(ipam={"ipv4_pools": ["configured"]})
    assert wish(request).pools == {4: ("configured",)}
    assert wish(request, {}, {POOLS4: '["of-namespace"]'}).pools == {4: ("of-namespace",)}
    assert wish(request, {POOLS4: '["of-pod","second"]'}, {POOLS4: '["n"]'}).pools == {
        4: ("of-pod", "second")
    }


def test_pools_of_a_family_that_is_not_wanted_do_not_count() -> None:
    annotations = {POOLS6: '["six"]'}
    assert wish(parse(), annotations).pools == {}
    assert wish(parse(**BOTH_FAMILIES), annotations | {POOLS4: '["four"]'}).pools == {
        4: ("four",),
        6: ("six",),
    }


def test_families_are_those_of_the_pod_the_namespace_or_the_configuration() -> None:
    assert wish(parse(**BOTH_FAMILIES)).families == {4, 6}
    assert wish(parse(ipam={"assign_ipv4": "false", "assign_ipv6": True})).families == {6}
    assert wish(parse(), {}, {wishes.ANNOTATION_FAMILIES: '["IPv6"]'}).families == {6}
    pod = {wishes.ANNOTATION_FAMILIES: '["IPv4","IPv6"]'}
    assert wish(parse(), pod, {wishes.ANNOTATION_FAMILIES: '["IPv6"]'}).families == {4, 6}


def test_certain_addresses_decide_about_the_families() -> None:
    found = wish(parse(), {wishes.ANNOTATION_ADDRESSES: '["fd00::7","10.5.0.7"]'})
    assert found.addresses == (IPv4Address("10.5.0.7"), IPv6Address("fd00::7"))
    assert found.families == {4, 6}
    assert not found.without_ipam


def test_addresses_may_come_from_the_runtime_too() -> None:
    arguments = {"CNI_ARGS": f"{ENVIRONMENT['CNI_ARGS']};IP=10.5.0.8;MAC=0A:58:0A:05:00:08"}
    found = wish(parse(arguments))
    assert (found.addresses, found.mac) == ((IPv4Address("10.5.0.8"),), "0a:58:0a:05:00:08")
    found = wish(parse(runtimeConfig={"ips": ["10.5.0.9/24"], "mac": "0a:58:0a:05:00:09"}))
    assert (found.addresses, found.mac) == ((IPv4Address("10.5.0.9"),), "0a:58:0a:05:00:09")


def test_addresses_past_address_management_need_a_permission() -> None:
    pod = {wishes.ANNOTATION_ADDRESSES_NO_IPAM: '["10.99.0.1"]'}
    found = wish(parse(**NO_IPAM), pod)
    assert (found.addresses, found.without_ipam) == ((IPv4Address("10.99.0.1"),), True)


def test_the_hardware_address_is_that_of_the_annotation() -> None:
    assert wish(parse(), {wishes.ANNOTATION_MAC: "0A:58:0A:05:00:07"}).mac == "0a:58:0a:05:00:07"


def test_allowed_sources_are_networks() -> None:
    found = wish(parse(), {wishes.ANNOTATION_SOURCES: '["10.9.0.0/16","fd00::/64"]'})
    assert found.sources == (ip_network("10.9.0.0/16"), ip_network("fd00::/64"))


@pytest.mark.parametrize(
    ("pod", "fields", "code", "words"),
    [
        ({POOLS4: "special"}, {}, 7, "JSON list"),
        ({POOLS4: '{"a": 1}'}, {}, 7, "JSON list"),
        ({POOLS4: "[1]"}, {}, 7, "JSON list"),
        ({wishes.ANNOTATION_FAMILIES: '["IPv5"]'}, {}, 7, "IPv5"),
        ({wishes.ANNOTATION_FAMILIES: "[]"}, {}, 7, "may hold"),
        ({wishes.ANNOTATION_ADDRESSES: '["10.5.0.300"]'}, {}, 7, "not an address"),
        ({wishes.ANNOTATION_ADDRESSES: "[]"}, {}, 7, "is empty"),
        ({wishes.ANNOTATION_ADDRESSES: '["10.5.0.1","10.5.0.2"]'}, {}, 7, "one address of each family"),
        ({wishes.ANNOTATION_ADDRESSES: '["10.5.0.1"]'}, {"ipam": {"type": "host-local"}}, 7, "host-local"),
        ({wishes.ANNOTATION_ADDRESSES_NO_IPAM: '["10.5.0.1"]'}, {}, 7, "ip_addrs_no_ipam"),
        ({wishes.ANNOTATION_ADDRESSES_NO_IPAM: '["10.5.0.1","10.5.0.2"]'}, NO_IPAM, 7, "one address of each"),
        (
            {
                wishes.ANNOTATION_ADDRESSES_NO_IPAM: '["10.5.0.1"]',
                wishes.ANNOTATION_ADDRESSES: '["10.5.0.1"]',
            },
            NO_IPAM,
            7,
            "remove one",
        ),
        ({ANNOTATION_FLOATING: '["192.0.2.9"]'}, {}, 7, "feature_control.floating_ips"),
        ({ANNOTATION_FLOATING: "192.0.2.9"}, FLOATING, 7, "JSON list"),
        ({ANNOTATION_FLOATING: '["192.0.2.9","192.0.2.9"]'}, FLOATING, 7, "twice"),
        ({ANNOTATION_FLOATING: '["127.0.0.1"]'}, FLOATING, 7, "unicast"),
        ({wishes.ANNOTATION_MAC: "nonsense"}, {}, 7, "hwAddr is 'nonsense'"),
        ({wishes.ANNOTATION_MAC: "01:00:5e:00:00:01"}, {}, 7, "unicast"),
        ({wishes.ANNOTATION_MAC: "00:00:00:00:00:00"}, {}, 7, "unicast"),
        ({wishes.ANNOTATION_SOURCES: '["10.9.0.0/33"]'}, {}, 7, "10.9.0.0/33"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_by_name(
    pod: dict[str, str], fields: dict[str, Any], code: int, words: str
) -> None:
    with pytest.raises(CNIError) as caught:
        wish(parse(**fields), pod)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_floating_addresses_need_an_address_of_the_pods_own_of_their_family() -> None:
    asked = wish(parse(**FLOATING), {ANNOTATION_FLOATING: '["192.0.2.9","2001:db8::9"]'})
    assert list(map(str, asked.floating)) == ["192.0.2.9", "2001:db8::9"]
    four, six = ip_address("10.5.0.1"), ip_address("fd00::1")
    wishes.check_floating(asked, (four, six))
    for own, words in (
        ((four,), "2001:db8::9, and the pod has no IPv6"),
        ((six,), "192.0.2.9, and the pod has no IPv4"),
        ((ip_address("192.0.2.9"), six), "the pod's own address"),
    ):
        with pytest.raises(CNIError, match=words) as caught:
            wishes.check_floating(asked, own)
        assert caught.value.code == 7


ANNOTATIONS = [POOLS4, POOLS6, wishes.ANNOTATION_FAMILIES, wishes.ANNOTATION_ADDRESSES, wishes.ANNOTATION_MAC,
    wishes.ANNOTATION_ADDRESSES_NO_IPAM, ANNOTATION_FLOATING, wishes.ANNOTATION_SOURCES]  # fmt: skip
VALUES = st.text(max_size=20) | st.lists(st.ip_addresses().map(str) | st.text(max_size=5), max_size=3).map(
    lambda items: str(items).replace("'", '"')
)


@given(st.dictionaries(st.sampled_from(ANNOTATIONS), VALUES, max_size=4))
def test_no_annotations_whatever_cause_another_error(annotations: dict[str, str]) -> None:
    permitted: dict[str, Any] = {"feature_control": {"ip_addrs_no_ipam": True, "floating_ips": True}}
    assert refusal(lambda: wish(parse(**permitted), annotations, annotations)) in (0, 2, 4, 7)
