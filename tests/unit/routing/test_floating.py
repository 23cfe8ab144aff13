"""Which floating address leads to which pod."""

from ipaddress import IPv4Address, ip_address

from hypothesis import given
from hypothesis import strategies as st

from tortie.model.floating import Address
from tortie.routing.floating import FloatingDemand, FloatingPod, translate, without

A, B = ip_address("10.5.0.10"), ip_address("10.5.0.9")
SIX = ip_address("fd00::1")
X, Y = ip_address("203.0.113.9"), ip_address("203.0.113.10")
X6 = ip_address("2001:db8::9")


def pod(name: str, *internal: object, floating: tuple[object, ...]) -> FloatingPod:
    own = tuple(ip_address(str(item)) for item in internal)
    return FloatingPod(f"shop/{name}", f"cali{name}", own, tuple(ip_address(str(item)) for item in floating))


def test_each_address_leads_to_the_pods_own_of_its_family() -> None:
    state = translate(FloatingDemand((pod("a", A, SIX, floating=(X, X6)),)))
    assert {key: (item.internal, item.interface) for key, item in state.translations.items()} == {
        X: (A, "calia"),
        X6: (SIX, "calia"),
    }
    assert (state.refused, state.waiting) == ({}, {})


def test_an_address_of_a_family_that_the_pod_lacks_is_refused() -> None:
    state = translate(FloatingDemand((pod("a", A, floating=(X, X6)),)))
    assert set(state.translations) == {X}
    assert "has no IPv6 address" in state.refused["calia", X6]


def test_an_address_that_somebody_has_is_refused_with_the_holders_name() -> None:
    state = translate(FloatingDemand((pod("a", A, floating=(B,)),), {B: "pod shop/b"}))
    assert state.translations == {}
    assert "shop/a is the address of pod shop/b" in state.refused["calia", B]


def test_of_several_pods_the_one_whose_address_comes_first_as_text_has_it() -> None:
    # As text, 10.5.0.10 comes before 10.5.0.9; the order is Calico's.
    for pods in (("a", A, "b", B), ("b", A, "a", B)):
        demand = (pod(str(pods[0]), pods[1], floating=(X,)), pod(str(pods[2]), pods[3], floating=(X,)))
        state = translate(FloatingDemand(demand))
        assert (state.translations[X].internal, state.translations[X].interface) == (A, f"cali{pods[0]}")
        assert f"leads to pod shop/{pods[0]}" in state.waiting[f"cali{pods[2]}", X]


def test_a_pod_sees_the_first_of_its_addresses_as_text_when_it_calls_itself() -> None:
    state = translate(FloatingDemand((pod("a", A, floating=(X, Y)), pod("b", B, floating=("203.0.113.2",)))))
    assert state.hairpins() == {A: Y, B: ip_address("203.0.113.2")}


def test_an_address_that_could_not_be_routed_leads_nowhere_and_the_reason_is_kept() -> None:
    state = without(translate(FloatingDemand((pod("a", A, floating=(X, Y)),))), [(X, "it is taken")])
    assert set(state.translations) == {Y}
    assert state.refused == {("calia", X): "it is taken"}


PODS = st.lists(
    st.builds(
        FloatingPod,
        st.just("shop/p"),
        st.integers(0, 5).map(lambda number: f"cali{number}"),
        st.integers(0, 5).map(lambda number: (IPv4Address(number),)),
        st.lists(st.integers(10, 14).map(IPv4Address), max_size=4, unique=True).map(tuple),
    ),
    max_size=5,
    unique_by=(lambda item: item.interface, lambda item: item.internal),
)


@given(PODS)
def test_the_order_of_the_pods_means_nothing_and_every_wish_is_answered(
    pods: list[FloatingPod],
) -> None:
    taken: dict[Address, str] = {IPv4Address(14): "the node itself"}
    state = translate(FloatingDemand(tuple(pods), taken))
    assert translate(FloatingDemand(tuple(reversed(pods)), taken)) == state
    for item in pods:
        for external in item.external:
            held = state.translations.get(external)
            answers = (
                held is not None and held.interface == item.interface,
                (item.interface, external) in state.refused,
                (item.interface, external) in state.waiting,
            )
            assert answers.count(True) == 1
