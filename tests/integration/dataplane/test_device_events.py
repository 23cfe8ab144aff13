"""The kernel's events about tunnel devices."""

import os
import select
from collections.abc import Iterator

import pytest

from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.dataplane import netns
from tortie.dataplane.device_events import DeviceEvents

pytestmark = pytest.mark.root

VXLAN = "link add vxlan.calico type vxlan id 4096 dstport 4789 local 192.0.2.1 nolearning"


@pytest.fixture
def node() -> Iterator[Namespace]:
    with namespaces(1) as (made,):
        yield made


def told(events: DeviceEvents) -> bool:
    """Whether an event about the devices comes: what the kernel has to say is there when `ip` returns."""
    return bool(select.select([events], [], [], 0)[0]) and events.read()


def test_whatever_happens_to_the_device_is_told(node: Namespace) -> None:
    with netns.entered(node.fd):
        events = DeviceEvents(["tunl0", "vxlan.calico"])
    with events:
        for command in (
            VXLAN,
            "link set vxlan.calico up",
            "addr add 10.5.0.0/32 dev vxlan.calico",
            "addr del 10.5.0.0/32 dev vxlan.calico",
            "link set vxlan.calico mtu 1400",
            "link set vxlan.calico down",
            "link del vxlan.calico",
        ):
            node.ip(*command.split())
            assert told(events), command
            assert not told(events), command


def test_other_devices_are_no_event(node: Namespace) -> None:
    with netns.entered(node.fd):
        events = DeviceEvents(["tunl0", "vxlan.calico"])
    with events:
        node.ip("link", "add", "cali1", "type", "veth", "peer", "name", "cali2")
        node.ip("addr", "add", "10.5.0.1/32", "dev", "cali1")
        assert select.select([events], [], [], 0)[0]
        assert not events.read()


def test_lost_events_count_as_one(node: Namespace) -> None:
    with netns.entered(node.fd):
        events = DeviceEvents(["vxlan.calico"])
    with events:
        changes = [f"link set lo mtu {mtu}" for mtu in range(1000, 3000)]
        batch = "\n".join(changes) + "\n"
        reader, writer = os.pipe()
        os.write(writer, batch.encode())
        os.close(writer)
        node.ip("-batch", f"/proc/{os.getpid()}/fd/{reader}")
        os.close(reader)
        assert told(events)
