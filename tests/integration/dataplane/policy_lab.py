"""A node and its pods as network namespaces, and connections between them from this one process."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.components.carrier import wait_for_carrier
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.dataplane import netns

TCP, UDP = 6, 17
PORTS = (8080, 8081)
HOST_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY = "169.254.1.1"
NODE_ADDRESS = "198.51.100.1"
# How long one waits to see that nothing else arrives, once all that is expected did.
GRACE_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@dataclass(frozen=True, order=True)
class Attempt:
    """One connection: names of pods (`host` is the node), protocol number, port."""

    source: str
    destination: str
    protocol: int
    port: int


@dataclass
class LabPod:
    """A pod: its namespace, interface on the node, address and listening sockets."""

    name: str
    interface: str
    address: str
    namespace: Namespace
    listeners: dict[tuple[int, int], socket.socket] = field(default_factory=dict)

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        """A socket inside, that does not block."""
        with netns.entered(self.namespace.fd):
            made = socket.socket(socket.AF_INET, kind)
        made.setblocking(False)
        return made

    def listen(self) -> None:
        """Serve all ports."""
        for port in PORTS:
            for protocol, kind in ((TCP, socket.SOCK_STREAM), (UDP, socket.SOCK_DGRAM)):
                listener = self.socket(kind)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.address, port))
                if protocol == TCP:
                    listener.listen(512)
                self.listeners[protocol, port] = listener

    def close(self) -> None:
        """Close the listeners."""
        for listener in self.listeners.values():
            listener.close()


class PolicyLab:
    """A node with pods `names`; pod number n has 10.5.0.(n+1) and interface cali<n>."""

    def __init__(self, node: Namespace, pods: Sequence[LabPod]) -> None:
        self.node = node
        self.pods = {pod.name: pod for pod in pods}
        self._round = 0

    @property
    def on_node(self) -> contextlib.AbstractContextManager[None]:
        """The node's namespace, for the calling thread."""
        return netns.entered(self.node.fd)

    def everything(self) -> list[Attempt]:
        """Every pair of pods, port and protocol."""
        return [
            Attempt(source, destination, protocol, port)
            for source in self.pods
            for destination in self.pods
            if source != destination
            for protocol in (TCP, UDP)
            for port in PORTS
        ]

    def try_all(self, attempts: Iterable[Attempt], expected: frozenset[Attempt]) -> frozenset[Attempt]:
        """Start all attempts at once; return those that got through, as soon as all that are expected did
        and nothing else came for a while."""
        self._round += 1
        with contextlib.ExitStack() as stack:
            trial = _Trial(self, stack, self._round, list(attempts))
            return trial.run(expected)

    def connect(
        self, source: str, destination: str, port: int = PORTS[0]
    ) -> tuple[socket.socket, socket.socket]:
        """An established TCP connection: both ends. Fail when there is none."""
        client = self.pods[source].socket(socket.SOCK_STREAM)
        client.settimeout(LONGEST_WAIT_SECONDS)
        listener = self.pods[destination].listeners[TCP, port]
        client.connect((self.pods[destination].address, port))
        server, _ = listener.accept()
        server.settimeout(LONGEST_WAIT_SECONDS)
        return client, server


class _Trial:
    """One round of attempts."""

    def __init__(
        self, lab: PolicyLab, stack: contextlib.ExitStack, number: int, attempts: list[Attempt]
    ) -> None:
        self._lab = lab
        self._stack = stack
        self._number = number
        self._attempts = attempts
        self._through: set[Attempt] = set()
        self._poll = stack.enter_context(select.epoll())
        self._clients: dict[int, tuple[Attempt, socket.socket]] = {}
        self._servers: dict[int, tuple[LabPod, int, int, socket.socket]] = {}

    def run(self, expected: frozenset[Attempt]) -> frozenset[Attempt]:
        for pod in self._lab.pods.values():
            for (protocol, port), listener in pod.listeners.items():
                self._servers[listener.fileno()] = (pod, protocol, port, listener)
                self._poll.register(listener, select.EPOLLIN)
        self._start()
        deadline = time.monotonic() + LONGEST_WAIT_SECONDS
        while time.monotonic() < deadline:
            events = self._poll.poll(GRACE_SECONDS)
            for descriptor, _ in events:
                self._handle(descriptor)
            if not events and expected <= self._through:
                break
        return frozenset(self._through)

    def _start(self) -> None:
        senders: dict[str, socket.socket] = {}
        for number, attempt in enumerate(self._attempts):
            pod = self._lab.pods[attempt.source]
            target = (self._lab.pods[attempt.destination].address, attempt.port)
            if attempt.protocol == TCP:
                client = self._stack.enter_context(pod.socket(socket.SOCK_STREAM))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                client.connect_ex(target)
                self._clients[client.fileno()] = attempt, client
                self._poll.register(client, select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
                continue
            sender = senders.get(attempt.source)
            if sender is None:
                # A port of its own per round: the kernel must not take it for an earlier round's connection.
                sender = senders[attempt.source] = self._stack.enter_context(pod.socket(socket.SOCK_DGRAM))
                sender.bind((pod.address, 20000 + self._number % 20000))
            sender.sendto(b"%d %d" % (self._number, number), target)

    def _handle(self, descriptor: int) -> None:
        if descriptor in self._clients:
            attempt, client = self._clients.pop(descriptor)
            self._poll.unregister(client)
            if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                self._through.add(attempt)
            return
        pod, protocol, port, listener = self._servers[descriptor]
        with contextlib.suppress(BlockingIOError):
            if protocol == TCP:
                listener.accept()[0].close()
                return
            number, index = listener.recv(64).split()
            if int(number) == self._number:
                attempt = self._attempts[int(index)]
                assert (attempt.destination, attempt.port) == (pod.name, port)
                self._through.add(attempt)


@contextlib.contextmanager
def policy_lab(names: Sequence[str]) -> Iterator[PolicyLab]:
    """A node with these pods, all of them listening; taken away afterwards."""
    with namespaces(1 + len(names)) as (node, *rooms), contextlib.ExitStack() as stack:
        node.ip("link", "set", "lo", "up")
        node.ip("addr", "add", f"{NODE_ADDRESS}/32", "dev", "lo")
        node.exec("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        pods = []
        for number, (name, room) in enumerate(zip(names, rooms, strict=True)):
            pod = LabPod(name, f"cali{number}", f"10.5.0.{number + 1}", room)
            plug(node, pod)
            pods.append(pod)
            stack.callback(pod.close)
            pod.listen()
        yield PolicyLab(node, pods)


def plug(node: Namespace, pod: LabPod) -> None:
    """The pod's interface: as the CNI plugin makes it, with permanent neighbours instead of ARP."""
    mac = f"02:00:00:00:00:{int(pod.address.rpartition('.')[2]):02x}"
    node.ip("link", "add", pod.interface, "address", HOST_MAC, "type", "veth",
            "peer", "name", "eth0", "address", mac, "netns", pod.namespace.name)  # fmt: skip
    node.ip("link", "set", pod.interface, "up")
    node.ip("neigh", "add", pod.address, "lladdr", mac, "dev", pod.interface, "nud", "permanent")
    node.ip("route", "add", f"{pod.address}/32", "dev", pod.interface)
    pod.namespace.ip("link", "set", "lo", "up")
    pod.namespace.ip("addr", "add", f"{pod.address}/32", "dev", "eth0")
    pod.namespace.ip("link", "set", "eth0", "up")
    pod.namespace.ip("neigh", "add", GATEWAY, "lladdr", HOST_MAC, "dev", "eth0", "nud", "permanent")
    pod.namespace.ip("route", "add", GATEWAY, "dev", "eth0")
    pod.namespace.ip("route", "add", "default", "via", GATEWAY)
    wait_for_carrier(node.ip, pod.interface)
    wait_for_carrier(pod.namespace.ip, "eth0")
