"""ADD, DEL and CHECK through the real shim and server, into real namespaces."""

import asyncio
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cni.node import CONFIG, MTU, TestNode, eventually, running
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import installer, shim
from tortie.cni.annotations import Annotations
from tortie.cni.cluster import ANNOTATION_MIRROR
from tortie.cni.wishes import ANNOTATION_POOLS
from tortie.dataplane.netlink import DataplaneError
from tortie.dataplane.workload import Workloads
from tortie.dataplane.workload_link import BegunLink, Departure, WorkloadEnds, WorkloadLink
from tortie.datastore.interface import ConflictError, InvalidError, R
from tortie.datastore.memory import Call, Fault, MemoryDatastore
from tortie.model.constants import ANNOTATION_CONTAINER_ID, ANNOTATION_POD_IP, ANNOTATION_POD_IPS
from tortie.model.names import veth_name
from tortie.model.resources import ClusterInformation, IPPool, IPPoolSpec, Metadata, Pod

pytestmark = pytest.mark.root


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with running(tmp_path) as made:
        yield made


@pytest.fixture(params=[installer.FAST_SHIM, installer.PORTABLE_SHIM], ids=["perl", "python"])
async def any_node(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[TestNode]:
    """A node with either of the shims."""
    async with running(tmp_path, shim=request.param) as made:
        yield made


@pytest.fixture
def sandboxes() -> Iterator[list[Namespace]]:
    with namespaces(2) as made:
        yield made


def path(sandbox: Namespace) -> str:
    return str(sandbox.path)


def address_of(result: dict[str, Any]) -> str:
    return str(result["ips"][0]["address"]).removesuffix("/32")


async def assert_nothing_is_left(node: TestNode) -> None:
    await node.idle()
    await eventually(lambda: node.host.devices() == [])
    assert node.host.json("route") == []
    assert await node.handles() == []
    assert await node.allocated() == 0


def memory(node: TestNode) -> MemoryDatastore:
    assert isinstance(node.datastore, MemoryDatastore)
    return node.datastore


async def test_add_connects_two_pods_and_del_leaves_nothing(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    addresses = []
    for number, sandbox in enumerate(sandboxes):
        await any_node.add_pod(f"web-{number}")
        status, result = await any_node.cni("ADD", f"c{number}", netns=path(sandbox), pod=f"web-{number}")
        assert status == 0, result
        addresses.append(address_of(result))
    assert sandboxes[0].reaches(addresses[1], size=MTU - 28)
    assert sandboxes[1].reaches(addresses[0])
    assert sorted(any_node.host.devices()) == sorted(
        veth_name("default", f"web-{number}") for number in (0, 1)
    )
    for number, sandbox in enumerate(sandboxes):
        assert await any_node.cni("DEL", f"c{number}", netns=path(sandbox), pod=f"web-{number}") == (0, {})
    await assert_nothing_is_left(any_node)


@pytest.mark.parametrize("version", shim.VERSIONS)
async def test_the_result_describes_both_ends(
    node: TestNode, sandboxes: list[Namespace], version: str
) -> None:
    await node.add_pod("web")
    status, result = await node.cni(
        "ADD", netns=path(sandboxes[0]), pod="web", config={"cniVersion": version, "mtu": 1400}
    )
    assert status == 0, result
    (inner,) = sandboxes[0].json("link", "show", "eth0")
    assert inner["mtu"] == 1400
    assert result["cniVersion"] == version
    mtu = {"mtu": 1400} if version == "1.1.0" else {}
    assert result["interfaces"] == [
        {"name": veth_name("default", "web"), "mac": "ee:ee:ee:ee:ee:ee"} | mtu,
        {"name": "eth0", "mac": inner["address"], "sandbox": path(sandboxes[0])} | mtu,
    ]
    assert result["ips"][0]["interface"] == 1
    assert result["ips"][0].get("version") == ("4" if version < "1.0.0" else None)


async def test_the_pod_carries_its_address_as_annotations_until_del(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    _, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    address = f"{address_of(result)}/32"
    expected = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "c1"}
    await node.annotated("web", expected)
    await node.cni("DEL", pod="web")
    await node.annotated("web", expected | {ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: ""})


async def test_a_second_add_answers_the_same(any_node: TestNode, sandboxes: list[Namespace]) -> None:
    await any_node.add_pod("web")
    first = await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web") == first
    assert await any_node.allocated() == 1


async def test_a_container_that_kubernetes_does_not_know_gets_an_interface_too(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    status, result = await node.cni("ADD", "0123456789abcdef", netns=path(sandboxes[0]))
    assert status == 0, result
    assert node.host.devices() == ["cali0123456789a"]
    assert await node.cni("DEL", "0123456789abcdef") == (0, {})
    await assert_nothing_is_left(node)


async def test_del_works_without_namespace_and_without_pod_and_twice(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    await any_node.datastore.delete(await any_node.datastore.get(Pod, "web", "default"))
    for _ in range(2):
        assert await any_node.cni("DEL", netns="/run/netns/gone", pod="web") == (0, {})
    await assert_nothing_is_left(any_node)


async def test_a_late_del_of_an_old_sandbox_spares_the_new_one(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await node.cni("ADD", "old", netns=path(sandboxes[0]), pod="web")
    status, result = await node.cni("ADD", "new", netns=path(sandboxes[1]), pod="web")
    assert status == 0, result
    assert await node.cni("DEL", "old", pod="web") == (0, {})
    assert node.host.devices() == [veth_name("default", "web")]
    assert sandboxes[1].devices() == ["eth0"]
    await node.idle()
    assert await node.handles() == ["k8s-pod-network.new"]
    address = f"{address_of(result)}/32"
    told = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "new"}
    await node.annotated("web", told)


async def test_check_passes_and_then_names_what_is_wrong(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    _, result = await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    config = {"prevResult": result}
    assert await any_node.cni("CHECK", netns=path(sandboxes[0]), pod="web", config=config) == (0, {})
    sandboxes[0].ip("route", "del", "default")
    any_node.host.ip("route", "del", f"{address_of(result)}/32")
    await any_node.allocator.release_handle("k8s-pod-network.c1")
    status, error = await any_node.cni("CHECK", netns=path(sandboxes[0]), pod="web", config=config)
    assert (status, error["code"]) == (1, 105)
    for words in ("no handle k8s-pod-network.c1", "no route 0.0.0.0/0", f"no route {address_of(result)}/32"):
        assert words in error["msg"]


async def test_the_address_plugin_assigns_checks_and_releases(any_node: TestNode) -> None:
    status, result = await any_node.cni("ADD", netns="/proc/self/ns/net", plugin="calico-ipam")
    assert status == 0, result
    assert result.keys() == {"cniVersion", "ips", "dns"}
    assert await any_node.handles() == ["k8s-pod-network.c1"]
    config = {"prevResult": result}
    arguments = {"netns": "/proc/self/ns/net", "plugin": "calico-ipam"}
    assert await any_node.cni("CHECK", config=config, **arguments) == (0, {})
    assert await any_node.cni("DEL", plugin="calico-ipam") == (0, {})
    await any_node.idle()
    assert (await any_node.cni("CHECK", config=config, **arguments))[1]["code"] == 105
    await assert_nothing_is_left(any_node)


async def test_pods_of_one_node_are_added_and_removed_at_the_same_time(node: TestNode) -> None:
    with namespaces(12) as made:
        names = [f"web-{number}" for number in range(len(made))]
        for name in names:
            await node.add_pod(name)
        added = await asyncio.gather(
            *(
                node.cni("ADD", f"c-{name}", netns=path(sandbox), pod=name)
                for name, sandbox in zip(names, made, strict=True)
            )
        )
        assert {status for status, _ in added} == {0}
        assert len({address_of(result) for _, result in added}) == len(made)
        removed = await asyncio.gather(*(node.cni("DEL", f"c-{name}", pod=name) for name in names))
        assert {status for status, _ in removed} == {0}
    await assert_nothing_is_left(node)


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (b"{", 6, "not JSON"),
        (b"[]", 7, "not an object"),
        (b"{}", 7, "lacks cniVersion and name and type"),
        (b'{"cniVersion": "9.9.9", "name": "n", "type": "calico"}', 1, "9.9.9"),
    ],
)
async def test_a_bad_configuration_is_refused_by_code(
    any_node: TestNode, sandboxes: list[Namespace], config: bytes, code: int, words: str
) -> None:
    status, error = await any_node.cni("ADD", netns=path(sandboxes[0]), config=config)
    assert (status, error["code"]) == (1, code), error
    assert words in error["msg"]
    await assert_nothing_is_left(any_node)


@pytest.mark.parametrize("netns", ["/dev/null", "/proc/self/ns/net", "/proc/self/ns/uts"])
async def test_what_is_not_a_containers_namespace_is_refused(any_node: TestNode, netns: str) -> None:
    await any_node.add_pod("web")
    status, error = await any_node.cni("ADD", netns=netns, pod="web")
    assert (status, error["code"]) == (1, 4)
    assert f"CNI_NETNS is {netns!r}" in error["msg"]
    await assert_nothing_is_left(any_node)


async def test_a_pod_that_does_not_exist_is_named(node: TestNode, sandboxes: list[Namespace]) -> None:
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="ghost")
    assert (status, error["code"], error["msg"]) == (1, 101, "pod default/ghost does not exist (any more)")
    await assert_nothing_is_left(node)


async def test_a_pod_that_was_replaced_under_its_name_is_named(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=of-old"
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), CNI_ARGS=arguments)
    assert (status, error["code"]) == (1, 101)
    assert "was replaced" in error["msg"]
    await node.add_pod("mirror", **{ANNOTATION_MIRROR: "of-old"})
    arguments = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=mirror;K8S_POD_UID=of-old"
    assert (await node.cni("ADD", netns=path(sandboxes[0]), CNI_ARGS=arguments))[0] == 0


async def test_a_locked_datastore_asks_to_try_again(node: TestNode, sandboxes: list[Namespace]) -> None:
    lock = {"spec": {"datastoreReady": False}}
    await node.datastore.patch(ClusterInformation, "default", lock)
    await node.add_pod("web")
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 11)
    assert "datastoreReady false" in error["msg"]
    await node.datastore.delete(await node.datastore.get(ClusterInformation, "default"))
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[1]["code"] == 11
    await assert_nothing_is_left(node)


async def test_exhausted_pools_ask_to_try_again_and_say_which(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.datastore.patch(IPPool, "default-ipv4-ippool", {"spec": {"disabled": True}})
    await node.add_pod("web")
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 11)
    assert "default-ipv4-ippool" in error["msg"]
    await assert_nothing_is_left(node)


async def test_a_pod_gets_its_address_from_the_pool_that_it_asks_for(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    spec = IPPoolSpec(cidr="10.77.0.0/24", node_selector="!all()")
    await node.datastore.create(IPPool(metadata=Metadata(name="special"), spec=spec))
    await node.add_pod("web", **{ANNOTATION_POOLS[4]: '["special"]'})
    status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert status == 0, result
    assert address_of(result).startswith("10.77.0.")
    for annotation in ('["10.99.0.0/16"]', "special", '{"a": 1}'):
        await node.add_pod(f"bad-{len(annotation)}", **{ANNOTATION_POOLS[4]: annotation})
        status, error = await node.cni("ADD", "c2", netns=path(sandboxes[1]), pod=f"bad-{len(annotation)}")
        assert (status, error["code"]) == (1, 7), error


async def test_a_name_that_is_taken_in_the_container_is_refused_without_a_leak(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    sandboxes[0].ip("link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    await node.add_pod("web")
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 104)
    assert "interface named eth0 already" in error["msg"]
    await assert_nothing_is_left(node)


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        ("get", Fault.UNAVAILABLE),
        ("create", Fault.UNAVAILABLE),
        ("update", Fault.UNAVAILABLE),
        ("update", Fault.LOST_RESPONSE),
    ],
)
async def test_a_datastore_that_fails_in_the_middle_of_add_costs_neither_interface_nor_address(
    node: TestNode, sandboxes: list[Namespace], verb: str, fault: Fault
) -> None:
    await node.add_pod("web")
    failing = True

    def inject(call: Call) -> Fault | None:
        return fault if failing and call.verb == verb else None

    memory(node).inject = inject
    status, error = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    assert (status, error["code"]) == (1, 11), error
    # It may have been made while the datastore was asked; then it is out of service, and deleted soon.
    await eventually(lambda: node.host.devices() == [] and sandboxes[0].devices() == [])
    failing = False
    # What could not be released at once is in the journal, and goes when the agent starts again.
    await node.stop()
    await node.start()
    await eventually(lambda: node.journalled() == [])
    assert await node.handles() == []
    assert await node.allocated() == 0
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.CONFLICT, Fault.LOST_RESPONSE])
async def test_annotations_that_cannot_be_written_do_not_fail_an_add_nor_a_del(
    node: TestNode, sandboxes: list[Namespace], fault: Fault
) -> None:
    await node.add_pod("web")
    memory(node).inject = lambda call: fault if call.verb == "patch" and call.kind is Pod else None
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0
    assert await node.cni("DEL", pod="web") == (0, {})
    await assert_nothing_is_left(node)


async def test_a_slow_annotation_of_add_does_not_come_after_that_of_del(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    slow = Slow(memory(node))
    await node.stop()
    node.datastore = slow
    await node.start()
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0
    await eventually(lambda: slow.begun == 1)
    assert await node.cni("DEL", pod="web") == (0, {})
    await node.idle()
    expected = {ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: "", ANNOTATION_CONTAINER_ID: "c1"}
    await node.annotated("web", expected)
    assert slow.patched == 2


async def test_annotations_that_a_killed_agent_did_not_write_are_written_by_the_next_one(
    any_node: TestNode, sandboxes: list[Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("web", "gone"):
        await any_node.add_pod(name)
    with monkeypatch.context() as patch:
        patch.setattr(Annotations, "write", lambda *_: None)  # as when it is killed before it comes to it
        status, result = await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
        assert status == 0
    await any_node.stop()
    await any_node.start()
    address = f"{address_of(result)}/32"
    told = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "c1"}
    await any_node.annotated("web", told)
    await any_node.annotated("gone", {})
    assert await any_node.cni("DEL", pod="web") == (0, {})
    await any_node.idle()
    await any_node.stop()
    await any_node.start()
    await any_node.annotated("web", {**told, ANNOTATION_POD_IP: "", ANNOTATION_POD_IPS: ""})


async def test_a_del_before_the_annotations_were_written_leaves_the_pod_as_it_was(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    patched: list[Call] = []

    def note(call: Call) -> None:
        if call.verb == "patch":
            patched.append(call)

    memory(node).inject = note
    assert (await node.cni("ADD", netns=path(sandboxes[0]), pod="web"))[0] == 0
    assert await node.cni("DEL", pod="web") == (0, {})
    await node.idle()
    await node.stop()
    assert patched == []
    await assert_nothing_is_left(node)


async def test_del_while_the_datastore_is_away_succeeds_and_is_carried_out_later(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    memory(node).inject = lambda _: Fault.UNAVAILABLE
    assert await node.cni("DEL", pod="web") == (0, {})
    await eventually(lambda: node.host.devices() == [])
    assert node.journalled() == ["c1.eth0.calico.del"]
    memory(node).inject = None
    await node.stop()
    await node.start()
    await eventually(lambda: node.journalled() == [])
    await assert_nothing_is_left(node)


async def test_del_while_the_agent_is_away_is_carried_out_when_it_starts(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    await any_node.stop()
    assert await any_node.cni("DEL", netns=path(sandboxes[0]), pod="web") == (0, {})
    assert any_node.journalled() == ["c1.eth0.calico.del"]
    (any_node.journal / "nonsense.del").write_bytes(b"nonsense")
    await any_node.start()
    await eventually(lambda: any_node.journalled() == [])
    await assert_nothing_is_left(any_node)


async def test_add_waits_for_an_agent_that_is_restarting(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.stop()
    call = asyncio.create_task(any_node.cni("ADD", netns=path(sandboxes[0]), pod="web"))
    await asyncio.sleep(0.3)
    assert not call.done()
    await any_node.start()
    assert (await call)[0] == 0


class Slow(MemoryDatastore):
    """Patches only after a while, the first one after a long while; the rest is that of another datastore."""

    def __init__(self, other: MemoryDatastore) -> None:
        vars(self).update(vars(other))
        self.begun = self.patched = 0

    async def patch(
        self, kind: type[R], name: str, patch: dict[str, Any], namespace: str = "", subresource: str = ""
    ) -> R:
        self.begun += 1
        await asyncio.sleep(0.1 if self.patched else 0.5)
        self.patched += 1
        return await super().patch(kind, name, patch, namespace, subresource)


class Lingering(Workloads):
    """Makes the interface and says so, but stays busy a while longer, in which the agent is stopped."""

    def __init__(self, made: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        self._made, self._loop = made, loop

    def add(self, link: WorkloadLink, begun: BegunLink | None = None) -> WorkloadEnds:
        ends = super().add(link, begun)
        self._loop.call_soon_threadsafe(self._made.set)
        time.sleep(0.5)
        return ends


async def test_an_agent_that_is_stopped_in_the_middle_of_add_takes_it_back(
    any_node: TestNode, sandboxes: list[Namespace]
) -> None:
    await any_node.add_pod("web")
    await any_node.stop()
    made = asyncio.Event()
    any_node.workloads = Lingering(made, asyncio.get_running_loop())
    await any_node.start()
    call = asyncio.create_task(any_node.cni("ADD", netns=path(sandboxes[0]), pod="web"))
    async with asyncio.timeout(30):
        await made.wait()
    assert any_node.host.devices() == [veth_name("default", "web")]
    await any_node.stop()
    status, error = await call
    assert (status, error["code"]) == (1, 11)
    await assert_nothing_is_left(any_node)


class Refusing(Workloads):
    """A kernel that refuses to remove."""

    def detach(self, departures: Sequence[Departure]) -> set[str]:
        raise DataplaneError(f"set device {departures[0].host_name}: EPERM")


async def test_an_interface_that_cannot_be_removed_keeps_its_address(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    await node.stop()
    node.workloads = Refusing()
    await node.start()
    await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
    status, error = await node.cni("DEL", pod="web")
    assert (status, error["code"]) == (1, 103)
    assert await node.handles() == ["k8s-pod-network.c1"]


# --- the socket ---


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def reachable_node(open_directory: Path) -> AsyncIterator[TestNode]:
    async with running(open_directory) as made:
        yield made


async def test_the_socket_is_for_root_alone(reachable_node: TestNode) -> None:
    sock = reachable_node.directory / "cni.sock"
    assert stat.S_IMODE(sock.stat().st_mode) == 0o600
    # Another user is refused even where the file's mode lets it pass: the caller's identity decides.
    sock.chmod(0o666)
    ask = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(10)\n"
        "os.setuid(int(sys.argv[2])); s.connect(sys.argv[1])\n"
        "try:\n    s.sendall(b'\\0\\0\\0\\1x'); print(len(s.recv(10)))\n"
        "except ConnectionError:\n    print(0)"
    )
    for user, refused in (("65534", True), ("0", False)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ask, str(sock), user, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert (output == b"0\n") == refused


async def exchange(node: TestNode, data: bytes, *, hang_up: bool = False) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(node.directory / "cni.sock"))
    writer.write(data)
    if hang_up:
        writer.write_eof()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


async def test_requests_that_are_too_large_cut_short_or_garbage_get_an_error(node: TestNode) -> None:
    too_large = await exchange(node, (shim.MAX_REQUEST + 1).to_bytes(4, "big"))
    cut_short = await exchange(node, b"\0\0\1\0abc", hang_up=True)
    garbage = await exchange(node, b"\0\0\0\3abc")
    for answer, code in ((too_large, 7), (cut_short, 5), (garbage, 6)):
        assert answer[0] == 1
        assert f'"code":{code}'.encode() in answer
    assert (await node.cni("DEL"))[0] == 0


async def test_a_killed_agents_socket_file_does_not_stop_the_next(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "cni.sock"))
    stale.close()
    async with running(tmp_path) as node:
        assert await node.cni("DEL") == (0, {})


async def test_a_caller_that_is_killed_does_not_disturb_the_agent(
    node: TestNode, sandboxes: list[Namespace]
) -> None:
    await node.add_pod("web")
    process = await asyncio.create_subprocess_exec(
        node.directory / "bin" / "calico",
        env={
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": path(sandboxes[0]),
            "CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
            "TORTIE_CNI_SOCKET": str(node.directory / "cni.sock"),
        },
        stdin=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(str(CONFIG).replace("'", '"').encode())
    process.stdin.close()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert await node.cni("DEL", pod="web") == (0, {})
    await assert_nothing_is_left(node)


async def test_add_and_del_on_a_real_api_server(tmp_path: Path, sandboxes: list[Namespace]) -> None:
    async with running(tmp_path, real_api_server=True) as node:
        assert node.api is not None
        pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        await asyncio.to_thread(node.api.request, "POST", "/api/v1/namespaces/default/pods", pod)
        status, result = await node.cni("ADD", netns=path(sandboxes[0]), pod="web")
        assert status == 0, result
        address = result["ips"][0]["address"]
        told = {ANNOTATION_POD_IP: address, ANNOTATION_POD_IPS: address, ANNOTATION_CONTAINER_ID: "c1"}
        await node.annotated("web", told)
        # What ADD relies on: annotations meant for a pod that was replaced do not reach its successor.
        patch = {"metadata": {"uid": "of-another", "annotations": {ANNOTATION_POD_IP: "10.9.9.9/32"}}}
        with pytest.raises((ConflictError, InvalidError)):
            await node.datastore.patch(Pod, "web", patch, "default", "status")
        assert await node.cni("DEL", pod="web") == (0, {})
        await node.idle()
        stored = await node.datastore.get(Pod, "web", "default")
        assert stored.metadata.annotations[ANNOTATION_POD_IP] == ""
        await assert_nothing_is_left(node)
