"""Readiness by layers, and when BGP counts as ready."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tortie.agent.bird import BirdState, sessions_problem
from tortie.agent.health import LIVENESS_LIMIT, Health, wait_alive
from tortie.bgp.control import BGPPeerStatus


async def test_node_is_ready_when_every_layer_is() -> None:
    health = Health(["dataplane", "bgp"])
    assert health.problems() == ["dataplane: not started yet", "bgp: not started yet"]
    health.pass_("dataplane")
    assert not health.ready.is_set()
    health.pass_("bgp")
    assert health.ready.is_set()
    assert health.problems() == []


async def test_layer_that_fails_later_makes_the_node_unready_and_says_why() -> None:
    health = Health(["dataplane"])
    health.pass_("dataplane")
    health.fail("dataplane", "no such device.")
    assert not health.ready.is_set()
    assert health.problems() == ["dataplane: no such device."]
    health.pass_("dataplane")
    assert health.ready.is_set()


async def test_one_stuck_loop_is_enough_to_be_not_alive() -> None:
    now = [1000.0]
    health = Health([], clock=lambda: now[0])
    health.beat("policy")
    now[0] += LIVENESS_LIMIT
    health.beat("routes")
    assert health.not_alive()
    health.beat("policy")
    assert not health.not_alive()


async def test_problems_of_some_layers_leave_the_others_out() -> None:
    health = Health(["dataplane", "policy", "cni"])
    health.pass_("dataplane")
    assert health.problems({"dataplane", "policy"}) == ["policy: not started yet"]


async def test_waiting_loop_gives_a_sign_and_says_whether_the_event_came() -> None:
    event, beats = asyncio.Event(), list[str]()
    assert not await wait_alive(event, 0.01, lambda: beats.append("beat"))
    assert beats == ["beat"]
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_alive(event, 60, lambda: beats.append("beat"))
    assert await wait_alive(event, 0, lambda: beats.append("never"))
    assert "never" not in beats


async def test_agent_without_a_finished_round_for_long_is_not_alive() -> None:
    now = [1000.0]
    health = Health([], clock=lambda: now[0])
    now[0] += LIVENESS_LIMIT - 1
    assert not health.not_alive()
    now[0] += 1
    assert health.not_alive()
    health.beat()
    assert not health.not_alive()


def peer(number: int, state: str, info: str = "") -> BGPPeerStatus:
    return BGPPeerStatus(f"Mesh_10_0_0_{number}", IPv4Address(f"10.0.0.{number}"), 64512, state, "", info)


UP, OTHER = peer(1, "Established"), peer(3, "Established")
DOWN = peer(2, "Active", "Socket: Connection refused")


@pytest.mark.parametrize(
    ("peers", "fresh", "problem"),
    [
        ((), True, ""),
        ((UP, OTHER), True, ""),
        ((UP, DOWN), True, "no BGP session with 10.0.0.2 (Active: Socket: Connection refused)"),
        ((UP, DOWN), False, ""),
        ((DOWN,), False, "no BGP session with 10.0.0.2 (Active: Socket: Connection refused)"),
    ],
)
def test_fresh_agent_waits_for_all_peers_an_older_one_for_any(
    peers: tuple[BGPPeerStatus, ...], fresh: bool, problem: str
) -> None:
    assert sessions_problem(BirdState(peers, recovering=False), fresh) == problem


@pytest.mark.parametrize("fresh", [True, False])
def test_peer_in_its_graceful_restart_is_no_reason_to_be_unready(fresh: bool) -> None:
    assert sessions_problem(BirdState((replace(DOWN, restarting=True),), recovering=False), fresh) == ""


def test_bird_that_still_recovers_is_not_ready() -> None:
    assert "graceful restart" in sessions_problem(BirdState((UP,), recovering=True), fresh=False)
