"""kill -9 of agent, API server and etcd, again and again, while twenty workers add and remove networks."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.components import apiserver, ipam_audit
from tests.components.apiserver import ApiServer
from tests.components.processes import daemon
from tests.integration.cni.node import ADDRESS, CONFIG, NODE, populate
from tests.integration.dataplane.namespaces import Namespace, namespaces
from tortie.cni import installer
from tortie.dataplane import netns
from tortie.datastore.kubernetes import connect
from tortie.model.names import veth_name
from tortie.model.resources import IPAMHandle

pytestmark = pytest.mark.root

WORKERS = 20
CYCLES = 50  # of ADD and DEL, for each worker: 2,000 operations
KILLS = {"agent": 10, "kube-apiserver": 2, "etcd": 2}
SECONDS_BEFORE_RESTART = 1.0
SECONDS_BETWEEN_KILLS = (0.5, 2.0)


@dataclass
class Victims:
    """The processes that are killed and started again, each with its command."""

    directory: Path
    commands: dict[str, list[str]]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)
    numbers: Any = field(default_factory=itertools.count)

    def start(self, name: str) -> None:
        log = self.directory / f"{name}-{next(self.numbers)}.log"
        self.running[name] = self.stack.enter_context(daemon(self.commands[name], log))

    def kill(self, name: str) -> None:
        """End it in the middle of whatever it does."""
        self.running[name].kill()
        self.running[name].wait()

    async def keep_dying(self, seed: int) -> None:
        """Kill one after the other at random points, and start it again."""
        chance = random.Random(seed)
        order = [name for name, count in KILLS.items() for _ in range(count)]
        chance.shuffle(order)
        for name in order:
            await asyncio.sleep(chance.uniform(*SECONDS_BETWEEN_KILLS))
            self.kill(name)
            self.start(name)

    async def restart_the_ended(self) -> None:
        """Start again what ended by itself, as kubelet does: an API server without etcd gives up."""
        while True:
            await asyncio.sleep(SECONDS_BEFORE_RESTART)
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    self.start(name)


def adopt(name: str, directory: Path, prefix: Sequence[str]) -> tuple[int, list[str]]:
    """Process and command of a daemon that somebody else started with its files in `directory`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")[:-1]
            if words and words[0].endswith(f"/{name}") and any(str(directory) in word for word in words):
                return int(entry.name), [*prefix, *words]
    raise AssertionError(f"{name} does not run in {directory}")


def has_ended(process: int) -> bool:
    """Whether a process is gone, but for its parent's asking (proc(5): stat, field 3)."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


@dataclass
class Runtime:
    """What a container runtime does: ADD; when that fails DEL until it succeeds; DEL of what ran."""

    directory: Path
    sandboxes: Sequence[Namespace]
    live: dict[str, tuple[str, str]] = field(default_factory=dict)  # container to pod and address
    calls: int = 0

    async def call(self, command: str, container: str, number: int, **fields: Any) -> tuple[int, Any]:
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{number}"
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(self.sandboxes[number].path),
            "CNI_ARGS": arguments,
            "CNI_PATH": "/usr/lib/cni",
            "TORTIE_CNI_SOCKET": str(self.directory / "cni.sock"),
            "TORTIE_CNI_JOURNAL": str(self.directory / "journal"),
        }
        process = await asyncio.create_subprocess_exec(
            self.directory / "bin" / "calico",
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(120):
            output, errors = await process.communicate(json.dumps(CONFIG | fields).encode())
        assert errors == b""
        self.calls += 1
        return process.returncode or 0, json.loads(output or b"{}")

    async def remove(self, container: str, number: int) -> None:
        """DEL until it succeeds, as kubelet does."""
        for _ in range(50):
            status, error = await self.call("DEL", container, number)
            if status == 0:
                return
            assert error["code"] == 11, error
            await asyncio.sleep(0.2)
        raise AssertionError(f"DEL of {container} does not succeed")

    async def work(self, number: int, chance: random.Random) -> None:
        """One pod after the other under one name, as of a StatefulSet. The last one stays, or goes."""
        for cycle in range(CYCLES):
            container = f"{number:02x}{cycle:04x}{chance.getrandbits(64):016x}"
            status, result = await self.call("ADD", container, number)
            if status:
                assert result["code"] == 11, result
                await self.remove(container, number)
                continue
            self.live[container] = (f"pod-{number}", result["ips"][0]["address"].partition("/")[0])
            if cycle < CYCLES - 1 or number % 2:
                del self.live[container]
                await self.remove(container, number)


@asynccontextmanager
async def cluster(
    directory: Path, sandboxes: Sequence[Namespace]
) -> AsyncIterator[tuple[ApiServer, Victims, Namespace]]:
    """Everything in processes of its own, in a namespace that plays the node, where this thread is, too."""
    with ExitStack() as stack:
        (host,) = stack.enter_context(namespaces(1))
        host.ip("link", "set", "lo", "up")
        host.ip("addr", "add", f"{ADDRESS}/32", "dev", "lo")
        stack.enter_context(netns.entered(host.fd))
        (directory / "api").mkdir()
        prefix = ("ip", "netns", "exec", host.name)
        api = stack.enter_context(apiserver.running(directory / "api", address=ADDRESS, prefix=prefix))
        async with await connect(api.kubeconfig) as datastore:
            await populate(datastore)
        for number in range(len(sandboxes)):
            containers = [{"name": "c", "image": "i"}]
            body = {
                "metadata": {"name": f"pod-{number}"},
                "spec": {"nodeName": NODE, "containers": containers},
            }
            await asyncio.to_thread(api.request, "POST", "/api/v1/namespaces/default/pods", body)
        chosen = installer.Settings(
            bin_dir=directory / "bin",
            skip_binaries=frozenset(installer.PLUGINS),
            shim=installer.FAST_SHIM,
        )
        installer.install_binaries(chosen)
        agent = [*prefix, sys.executable, "-m", "tests.components.cni_agent", str(api.kubeconfig), NODE]
        victims = Victims(directory, {"agent": [*agent, str(directory), "1450"]})
        stack.enter_context(victims.stack)
        for name in ("kube-apiserver", "etcd"):
            process, victims.commands[name] = adopt(name, directory / "api", prefix)
            os.kill(process, signal.SIGKILL)
            await wait_for(partial(has_ended, process))  # its successor wants the same port
        supervision = asyncio.create_task(victims.restart_the_ended())
        try:
            for name in ("etcd", "kube-apiserver"):
                victims.start(name)
            await wait_for(api.is_ready)
            victims.start("agent")
            yield api, victims, host
        finally:
            supervision.cancel()


async def wait_for(condition: Any) -> None:
    """Poll for at most two minutes."""
    for _ in range(1200):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("It did not come about within two minutes.")


async def test_after_all_that_killing_addresses_are_those_of_live_pods_and_nothing_is_stray(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with namespaces(WORKERS) as sandboxes:
        async with cluster(tmp_path, sandboxes) as (api, victims, host):
            await wait_for((tmp_path / "ready").exists)
            runtime = Runtime(tmp_path, sandboxes)
            async with asyncio.TaskGroup() as group:
                group.create_task(victims.keep_dying(seed))
                for number in range(WORKERS):
                    group.create_task(runtime.work(number, random.Random(seed + number)))
            assert runtime.calls >= 2 * WORKERS * CYCLES - WORKERS
            await wait_for(api.is_ready)
            victims.kill("agent")
            (tmp_path / "ready").unlink()
            victims.start("agent")
            await wait_for((tmp_path / "ready").exists)
            await wait_for(lambda: not list((tmp_path / "journal").glob("*.del")))
            attachments = [{"containerID": container, "ifname": "eth0"} for container in runtime.live]
            collect = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": attachments}
            assert await runtime.call("GC", "", 0, **collect) == (0, {})
            await assert_exactly_the_live(api, host, runtime)


async def assert_exactly_the_live(api: ApiServer, host: Namespace, runtime: Runtime) -> None:
    """Allocations, handles, devices and routes are those of live containers."""
    assert len(runtime.live) >= 1
    expected = {address: f"k8s-pod-network.{container}" for container, (_, address) in runtime.live.items()}
    async with await connect(api.kubeconfig) as datastore:
        await ipam_audit.check(datastore)
        holders = {str(address): handle for address, handle in (await ipam_audit.holders(datastore)).items()}
        handles = {item.spec.handle_id for item in (await datastore.list(IPAMHandle)).items}
    assert holders == expected
    assert handles == set(expected.values())
    devices = {veth_name("default", pod): address for pod, address in runtime.live.values()}
    await wait_for(lambda: sorted(host.devices()) == sorted(devices))
    routes = {route["dev"]: route["dst"] for route in host.json("route") if route["dev"].startswith("cali")}
    assert routes == devices
