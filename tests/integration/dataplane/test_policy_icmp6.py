"""Policy by ICMPv6 type and code, with real packets."""

import contextlib
import select
import socket
import struct
import time
from dataclasses import replace

import pytest

from tests.integration.dataplane import test_policy_ipv6 as ipv6
from tests.integration.dataplane.policy_lab import GRACE_SECONDS, LONGEST_WAIT_SECONDS, PolicyLab
from tests.integration.dataplane.policy_states import ALLOW_ALL, CLOSED, OPEN
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.policy.state import ICMP, Action, PolicyRules, Rule

pytestmark = pytest.mark.root

lab = ipv6.lab  # the fixture: pods with IPv6 addresses

ICMPV6, UDP = 58, 17  # IANA
ECHO, NODE_INFORMATION = 128, 139  # requests: RFC 4443, RFC 4620
Kind = tuple[int, int]  # type and code
KINDS: tuple[Kind, ...] = ((ECHO, 0), (ECHO, 3), (NODE_INFORMATION, 0))


def arrived(lab: PolicyLab, expected: frozenset[Kind]) -> frozenset[Kind]:
    """Send one of each from b to a; return those that arrive, as soon as all that are expected did and
    nothing else came for a while."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for name in ("b", "a"):
            with netns.entered(lab.pods[name].namespace.fd):
                raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, ICMPV6)
            sockets.append(stack.enter_context(raw))
        sender, receiver = sockets
        for kind in KINDS:  # the kernel fills in the checksum (RFC 3542, section 3.1)
            sender.sendto(struct.pack("!BBHHH", *kind, 0, 7, 1), (ipv6.address(lab, "a"), 0))
        found: set[Kind] = set()
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([receiver], [], [], GRACE_SECONDS)
            if ready:
                data, (address, *_) = receiver.recvfrom(256)
                if address == ipv6.address(lab, "b"):
                    found.add((data[0], data[1]))
            elif expected <= found:
                break
        return frozenset(found)


def of_type(kind: int, code: int | None = None, action: Action = Action.ALLOW) -> Rule:
    return Rule(action, ip_version=6, protocol=ICMPV6, icmp=ICMP(kind, code))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((Rule(Action.ALLOW),), KINDS),
        ((), ()),
        ((Rule(Action.ALLOW, ip_version=6, protocol=ICMPV6),), KINDS),
        ((of_type(ECHO),), ((ECHO, 0), (ECHO, 3))),
        ((of_type(ECHO, 3),), ((ECHO, 3),)),
        ((of_type(ECHO, 0, Action.DENY), Rule(Action.ALLOW)), ((ECHO, 3), (NODE_INFORMATION, 0))),
        (
            (Rule(Action.ALLOW, ip_version=6, protocol=ICMPV6, not_icmp=ICMP(ECHO)),),
            ((NODE_INFORMATION, 0),),
        ),
        ((Rule(Action.ALLOW, ip_version=4),), ()),
        ((Rule(Action.ALLOW, protocol=UDP),), ()),
        ((Rule(Action.ALLOW, not_protocol=ICMPV6),), ()),
    ],
)
def test_icmpv6_arrives_as_the_rules_say(
    lab: PolicyLab, rules: tuple[Rule, ...], expected: tuple[Kind, ...]
) -> None:
    state = ipv6.state(lab)
    policies = {OPEN: ALLOW_ALL, CLOSED: PolicyRules(ingress=rules)}
    PolicyDataplane().sync(replace(state, policies=policies))
    lab.node.exec("conntrack", "-F")
    lab.pods["a"].namespace.exec("sysctl", "-q", "-w", "net.ipv6.icmp.echo_ignore_all=1")
    assert arrived(lab, frozenset(expected)) == frozenset(expected)
