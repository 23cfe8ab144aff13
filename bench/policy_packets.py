"""What packets pay for policy: pod to pod through the node, as many policies against one.

By construction an established connection pays nothing: its packets are accepted before any policy is asked.
"""

import socket
import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bench.measurement import Measurement
from bench.policy_workload import ALLOW_ALL, full_name, namespace, policy_key, policy_state, run
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.policy.state import PolicyState, TierRules

PACKET_ROUNDS = 48
PACKET_SECONDS = 0.15
SETTLE_SECONDS = 0.05  # the kernel frees the old rules in the background, beside the first packets


def packets() -> list[Measurement]:
    """Pod to pod through the node: 500 policies on the receiver against one, in turns."""
    rates: dict[int, list[float]] = {1: [], 500: []}
    delays: dict[int, list[float]] = {1: [], 500: []}
    with ExitStack() as stack:
        node, pods = _wire(stack)
        states = {count: _pair_state(count) for count in rates}
        stream = _stream(stack, pods)
        datagrams = _datagrams(stack, pods)
        dataplane = PolicyDataplane()
        for number in range(PACKET_ROUNDS):
            for count in (1, 500) if number % 2 else (500, 1):
                with netns.entered(node):
                    dataplane.sync(states[count])
                time.sleep(SETTLE_SECONDS)
                rates[count].append(_throughput(*stream))
                delays[count].append(_round_trip(*datagrams))
    return [
        _compared("throughput pod to pod with 500 policies", "Gbit/s", "higher", rates[500], rates[1]),
        _compared("round trip pod to pod with 500 policies", "us", "lower", delays[500], delays[1]),
    ]


def _compared(
    name: str, unit: str, better: Literal["lower", "higher"], many: list[float], one: list[float]
) -> Measurement:
    """Samples of one round stand side by side, so that their ratio knows nothing of what the machine did in
    other rounds: the median of these ratios is what is reported."""
    ratios = sorted(a / b for a, b in zip(many, one, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Measurement(
        name=name,
        unit=unit,
        better=better,
        ours=statistics.median(one) * middle,
        peer_name="one policy",
        peer=statistics.median(one),
        wanted=0.95,
        samples=len(ratios),
        explanation="ours is the other side's median times the median of the ratios of neighbouring samples, "
        f"of which half are between {low:.3f} and {high:.3f}; the median of all samples with 500 policies is "
        f"{statistics.median(many):.3g} {unit}. An established connection's packets are accepted before any "
        "policy is asked",
    )


POD_ADDRESSES = ("10.0.0.1", "10.0.0.2")
ROUND_TRIPS = 1000
BUFFER_BYTES = 1 << 18


def _wire(stack: ExitStack) -> tuple[int, tuple[int, int]]:
    """A node and two pods, wired as the CNI plugin does."""
    node = stack.enter_context(namespace("node"))
    pods = (stack.enter_context(namespace("pod0")), stack.enter_context(namespace("pod1")))
    mac = "ee:ee:ee:ee:ee:ee"
    with netns.entered(node):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for number, (pod, address) in enumerate(zip(pods, POD_ADDRESSES, strict=True)):
            device = f"cali{number:011d}"
            own = f"02:00:00:00:00:0{number}"
            ends = ("type", "veth", "peer", "name", "eth0", "address", own)
            run("ip", "link", "add", device, "address", mac, *ends, "netns", full_name(f"pod{number}"))
            run("ip", "link", "set", device, "up")
            run("ip", "neigh", "add", address, "lladdr", own, "dev", device)
            run("ip", "route", "add", address, "dev", device)
            with netns.entered(pod):
                run("ip", "addr", "add", f"{address}/32", "dev", "eth0")
                run("ip", "link", "set", "eth0", "up")
                run("ip", "neigh", "add", "169.254.1.1", "lladdr", mac, "dev", "eth0")
                run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
                run("ip", "route", "add", "default", "via", "169.254.1.1")
    return node, pods


def _pair_state(count: int) -> PolicyState:
    """Both endpoints with so many policies, of which the last allows."""
    state = policy_state(2, count)
    keys = tuple(policy_key(number) for number in range(count))
    last = {keys[-1]: ALLOW_ALL}
    workloads = {
        name: replace(item, tiers=(TierRules("default", keys),)) for name, item in state.workloads.items()
    }
    return replace(state, policies={**state.policies, **last}, workloads=workloads)


def _stream(stack: ExitStack, pods: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
    with netns.entered(pods[1]):
        server = stack.enter_context(socket.create_server((POD_ADDRESSES[1], 80)))
    with netns.entered(pods[0]):
        client = stack.enter_context(socket.create_connection((POD_ADDRESSES[1], 80), timeout=10))
    accepted, _ = server.accept()
    return client, stack.enter_context(accepted)


def _datagrams(stack: ExitStack, pods: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
    ends = []
    for pod, address in zip(pods, POD_ADDRESSES, strict=True):
        with netns.entered(pod):
            end = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        end.settimeout(10)
        end.bind((address, 5000))
        ends.append(end)
    ends[0].connect((POD_ADDRESSES[1], 5000))
    ends[1].connect((POD_ADDRESSES[0], 5000))
    return ends[0], ends[1]


def _throughput(sender: socket.socket, receiver: socket.socket) -> float:
    """Gbit/s over PACKET_SECONDS."""
    stop = threading.Event()
    payload = bytes(BUFFER_BYTES)

    def send() -> None:
        while not stop.is_set():
            sender.sendall(payload)

    thread = threading.Thread(target=send)
    buffer = bytearray(BUFFER_BYTES)
    thread.start()
    begin = time.perf_counter()
    count = 0
    while time.perf_counter() - begin < PACKET_SECONDS:
        count += receiver.recv_into(buffer)
    seconds = time.perf_counter() - begin
    stop.set()
    receiver.settimeout(0.2)  # what is on its way, so that the sender ends
    while thread.is_alive():
        try:
            receiver.recv_into(buffer)
        except TimeoutError:
            continue
    receiver.settimeout(10)
    thread.join()
    return count * 8 / seconds / 1e9


def _round_trip(client: socket.socket, server: socket.socket) -> float:
    """Microseconds, median."""
    samples = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        client.send(b"ping")
        server.send(server.recv(16))
        client.recv(16)
        samples.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(samples)
