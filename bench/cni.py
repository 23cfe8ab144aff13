"""ADD and DEL: the plugin with agent, API server and etcd against Debian's Go `ptp` with `host-local`.

Both sides are executed as a runtime does it, in turns, with a pod's namespace each, by posix_spawn from one
thread: fifty threads of Python that start a process each take a millisecond for one, and the plugins would
wait for them. Ours does more: it accounts for the address in etcd, through the API server, before it answers,
and writes the pod's annotations afterwards; `host-local` writes a file, without waiting for the disk.
"""

import asyncio
import json
import os
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from tests.components import apiserver
from tests.components.apiserver import ApiServer
from tests.components.processes import daemon, wait_until

from bench.measurement import Measurement
from tortie.cni import installer
from tortie.dataplane import netns
from tortie.datastore.kubernetes import connect
from tortie.ipam import block as blocks
from tortie.ipam.handles import Handles

SERIAL: Final = 60  # pods, one after the other, each side in turn
# What a side still does in the background must not burden the other: ours writes annotations 0.1 s after an
# ADD, and deletes interfaces 0.2 s after a DEL.
PAUSE: Final = 0.3
WRITES: Final = 20  # handles and blocks written by nobody but us, for the explanation
HALF_FULL: Final = 32  # addresses of a block, the average of one that fills up
CONCURRENT: Final = 50
ROUNDS: Final = 4  # of CONCURRENT pods at the same time, each side in turn
WARM_UP: Final = 5
NODE: Final = "bench-node"
ADDRESS: Final = "192.0.2.1"  # of the API server, on the host's loopback device
PEER: Final = "Go ptp + host-local"
GO_PLUGINS: Final = "/usr/lib/cni"
OURS: Final[dict[str, Any]] = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calico"}
THEIRS: Final[dict[str, Any]] = {
    "cniVersion": "1.0.0",
    "name": "peer",
    "type": "ptp",
    "mtu": 1450,
    "ipam": {"type": "host-local", "subnet": "10.250.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]},
}
_GROUP: Final = "/apis/crd.projectcalico.org/v1"


@dataclass(frozen=True, slots=True)
class Job:
    """A container, the name of its namespace, and its pod."""

    container: str
    namespace: str
    pod: str
    uid: str


@dataclass(frozen=True, slots=True)
class _Running:
    """A call under way: its place, its process, and when it started."""

    index: int
    process: int
    started: float


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two plugins: what is executed with which environment and configuration."""

    command: tuple[str, ...]
    environment: dict[str, str]
    config: dict[str, Any]

    def call(self, command: str, jobs: Sequence[Job]) -> tuple[list[float], float]:
        """Milliseconds of each call, all of them at the same time, and of all together. Each must succeed."""
        prepared = [self._prepare(command, job) for job in jobs]
        running: dict[int, _Running] = {}
        began = time.perf_counter()
        with select.epoll() as ended:
            for index, (environment, files) in enumerate(prepared):
                started = time.perf_counter()
                number = os.posix_spawn(self.command[0], self.command, environment, file_actions=files)
                descriptor = os.pidfd_open(number)
                running[descriptor] = _Running(index, number, started)
                ended.register(descriptor, select.EPOLLIN)
            milliseconds = [0.0] * len(jobs)
            failed: list[int] = []
            while running:
                for descriptor, _ in ended.poll():
                    now = time.perf_counter()
                    call = running.pop(descriptor)
                    milliseconds[call.index] = (now - call.started) * 1000
                    ended.unregister(descriptor)
                    os.close(descriptor)
                    if os.waitpid(call.process, 0)[1]:
                        failed.append(call.index)
        whole = (time.perf_counter() - began) * 1000
        said = [os.pread(files[1][1], 1 << 16, 0) for _, files in prepared]
        for _, files in prepared:
            os.close(files[0][1])
            os.close(files[1][1])
        if failed:
            raise RuntimeError(f"{command} by {self.command[-1]} failed: {said[failed[0]]!r}")
        return milliseconds, whole

    def _prepare(self, command: str, job: Job) -> tuple[dict[str, str], list[tuple[int, int, int]]]:
        """Environment and standard streams of one call."""
        pod = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={job.pod};K8S_POD_UID={job.uid}"
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": job.container,
            "CNI_NETNS": f"/run/netns/{job.namespace}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;{pod}",
            "CNI_PATH": GO_PLUGINS,
        }
        given, said = os.memfd_create("stdin"), os.memfd_create("stdout")
        os.pwrite(given, json.dumps(self.config).encode(), 0)
        streams = [(os.POSIX_SPAWN_DUP2, given, 0)]
        streams += [(os.POSIX_SPAWN_DUP2, said, number) for number in (1, 2)]
        return self.environment | variables, streams


@contextmanager
def _host() -> Iterator[str]:
    """A namespace that plays the node; this thread is inside meanwhile, and so is what it starts."""
    name = f"tC-bench-{os.getpid()}"
    with _namespaces([name]):
        for command in ("link set lo up", f"addr add {ADDRESS}/32 dev lo"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        subprocess.run(["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        with Path(f"/run/netns/{name}").open("rb") as handle, netns.entered(handle.fileno()):
            yield name


@contextmanager
def _namespaces(names: Sequence[str]) -> Iterator[None]:
    """Named network namespaces, gone afterwards."""
    made: list[str] = []
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            made.append(name)
        yield
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def _sides(directory: Path, host: str) -> Iterator[tuple[ApiServer, Side, Side]]:
    """Everything that runs: etcd, API server and agent; and what to execute for us and for them."""
    prefix = ("ip", "netns", "exec", host)
    (directory / "api").mkdir()
    with ExitStack() as stack:
        api = stack.enter_context(apiserver.running(directory / "api", address=ADDRESS, prefix=prefix))
        api.request("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
        ready = {"metadata": {"name": "default"}, "spec": {"datastoreReady": True}}
        _create(api, "ClusterInformation", "clusterinformations", ready)
        pool = {"metadata": {"name": "default-ipv4-ippool"}, "spec": {"cidr": "10.5.0.0/16", "blockSize": 26}}
        _create(api, "IPPool", "ippools", pool)
        module = [sys.executable, "-m", "tests.components.cni_agent"]
        arguments = [str(api.kubeconfig), NODE, str(directory), "1450"]
        log = directory / "agent.log"
        agent = stack.enter_context(daemon([*prefix, *module, *arguments], log))
        wait_until((directory / "ready").exists, agent, log, lambda: time.sleep(0.05), 1200)
        chosen = installer.Settings(
            bin_dir=directory / "bin",
            skip_binaries=frozenset(installer.PLUGINS),
            shim=installer.FAST_SHIM,
        )
        installer.install_binaries(chosen)
        paths = {
            "TORTIE_CNI_SOCKET": str(directory / "cni.sock"),
            "TORTIE_CNI_JOURNAL": str(directory / "journal"),
        }
        ours = Side((str(directory / "bin" / "calico"),), paths, OURS)
        ipam = THEIRS["ipam"] | {"dataDir": str(directory / "networks")}
        theirs = Side((f"{GO_PLUGINS}/ptp",), {}, THEIRS | {"ipam": ipam})
        yield api, ours, theirs


def _create(api: ApiServer, kind: str, plural: str, body: dict[str, Any]) -> None:
    head = {"apiVersion": "crd.projectcalico.org/v1", "kind": kind}
    api.request("POST", f"{_GROUP}/{plural}", head | body)


def _pods(api: ApiServer, names: Sequence[str]) -> dict[str, str]:
    """Pods of the node; their uids by name."""

    def create(name: str) -> str:
        containers = [{"name": "c", "image": "i"}]
        body = {"metadata": {"name": name}, "spec": {"nodeName": NODE, "containers": containers}}
        return str(api.request("POST", "/api/v1/namespaces/default/pods", body)["metadata"]["uid"])

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(names, pool.map(create, names), strict=True))


@dataclass(slots=True)
class Times:
    """Milliseconds of each call, and calls per second of each round with many at the same time."""

    milliseconds: list[float]
    rates: list[float]

    def percentile(self, hundredth: int) -> float:
        """The value that so many of a hundred calls do not exceed."""
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, len(ordered) * hundredth // 100)]


def _serial(api: ApiServer, sides: Sequence[Side]) -> dict[str, list[Times]]:
    """One call at a time, each side in turn."""
    count = SERIAL + WARM_UP
    pods = _pods(api, [f"serial-{number}" for number in range(count)])
    found = {command: [Times([], []) for _ in sides] for command in ("ADD", "DEL")}
    names = [[f"tC-s{side}-{number}" for number in range(count)] for side in range(len(sides))]
    with _namespaces([name for group in names for name in group]):
        for command, times in found.items():
            for number, (pod, uid) in enumerate(pods.items()):
                order = list(range(len(sides)))
                for side in order if number % 2 else order[::-1]:
                    job = Job(f"c{side}{number:060x}", names[side][number], pod, uid)
                    taken, _ = sides[side].call(command, [job])
                    if number >= WARM_UP:
                        times[side].milliseconds += taken
                    time.sleep(PAUSE)
    return found


async def _write_times(kubeconfig: Path) -> tuple[float, float]:
    """Milliseconds (p50) that the API server takes for what one ADD waits for: a new handle, and a block.

    As in the serial measurement nothing happens between two of them: idle processors take their time.
    """
    handles: list[float] = []
    updates: list[float] = []
    async with await connect(kubeconfig) as datastore:
        writer = Handles(datastore)
        block = blocks.new_block(ip_network("10.6.0.0/26"), NODE, datetime.now(UTC), 1)
        for number in range(HALF_FULL):
            attributes = {"node": NODE, "namespace": "default", "pod": f"pod-{number}"}
            block, _ = blocks.assign(block, 1, f"explanation.{number:064x}", attributes)
        block = await datastore.create(block)
        for number in range(WRITES):
            await asyncio.sleep(PAUSE)
            began = time.perf_counter()
            handle = await writer.create(f"explanation.{number:064x}", {"10.6.0.0/26": 1})
            handles.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            block = await datastore.update(blocks.touch(block))
            updates.append((time.perf_counter() - began) * 1000)
            await writer.delete(handle)
        await datastore.delete(block)
    return statistics.median(handles), statistics.median(updates)


def _alone(side: Side) -> float:
    """Milliseconds (p50) of the plugin without anybody else: VERSION, which it answers by itself."""
    taken: list[float] = []
    for _ in range(WRITES):
        time.sleep(PAUSE)
        taken += side.call("VERSION", [Job("none", "none", "none", "none")])[0]
    return statistics.median(taken)


def _plugins_time() -> float:
    """Milliseconds of processor time of all plugins that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def _processor_time(processes: dict[str, int]) -> dict[str, float]:
    """Milliseconds of processor time that each process has used (proc(5): stat, fields 14 and 15)."""
    used: dict[str, float] = {}
    for name, number in processes.items():
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        used[name] = (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
    return used


def _process(name: str, directory: Path) -> int:
    """The daemon whose command names `directory`."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            if any(name in word for word in words[:3]) and any(str(directory) in word for word in words):
                return int(entry.name)
    raise RuntimeError(f"{name} does not run in {directory}")


def _concurrent(api: ApiServer, sides: Sequence[Side], spent: dict[str, float]) -> dict[str, list[Times]]:
    """Many calls at the same time, each side in turn. `spent` is filled with the processor time for one ADD:
    of our daemons until the last answer, and of both plugins."""
    names_of = {"agent": "tests.components.cni_agent", "API server": "kube-apiserver", "etcd": "bin/etcd"}
    root = api.directory.parent.parent
    processes = {name: _process(word, root) for name, word in names_of.items()}
    found = {command: [Times([], []) for _ in sides] for command in ("ADD", "DEL")}
    names = [f"tC-c-{number}" for number in range(CONCURRENT)]
    for turn in range(ROUNDS * len(sides)):
        side, label = turn % len(sides), f"round-{turn}"
        pods = _pods(api, [f"{label}-{number}" for number in range(CONCURRENT)])
        time.sleep(0.5)  # the agent's watch
        jobs = [
            Job(f"c{turn}x{number:060x}", name, pod, uid)
            for number, (name, (pod, uid)) in enumerate(zip(names, pods.items(), strict=True))
        ]
        with _namespaces(names):
            for command, times in found.items():
                before = _processor_time(processes) | {"plugin": _plugins_time()}
                taken, whole = sides[side].call(command, jobs)
                times[side].rates.append(CONCURRENT / whole * 1000)
                times[side].milliseconds += taken
                after = _processor_time(processes) | {"plugin": _plugins_time()}
                if command == "ADD":
                    for name in after if side == 0 else ["plugin"]:
                        share = (after[name] - before[name]) / (CONCURRENT * ROUNDS)
                        key = name if side == 0 else PEER
                        spent[key] = spent.get(key, 0.0) + share
                time.sleep(1.5)
    return found


def _own_share() -> Measurement:
    """What the agent adds, policy included: the same requests, a datastore that answers at once, no shim."""
    script = [sys.executable, "-m", "bench.cni_share"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    samples = [float(word) for word in done.stdout.split()]
    return Measurement(
        name="CNI ADD, the agent's own share with policy (p50)",
        unit="ms",
        ours=statistics.median(samples),
        limit=3.0,
        samples=len(samples),
        explanation=f"the fastest took {min(samples):.1f} ms on this machine under the load above",
    )


def measure() -> list[Measurement]:
    """All lines of the table."""
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, _host() as host:
        with _sides(Path(name), host) as (api, *sides):
            serial = _serial(api, sides)
            handle, block = asyncio.run(_write_times(api.kubeconfig))
            alone = _alone(sides[0])
            concurrent = _concurrent(api, sides, spent)
        share = _own_share()
    theirs = spent.pop(PEER)
    rate = statistics.median(concurrent["ADD"][0].rates)
    used = " + ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in spent.items())
    one_explanation = (
        f"an ADD waits for two durable writes, one after the other: a handle, {handle:.1f} ms, and a half "
        f"full block, {block:.1f} ms; the plugin needs {alone:.1f} ms to ask and answer (p50, each measured "
        "alone). That an address is in the datastore before the pod has it is what host-local does without"
    )
    many_explanation = (
        f"processor time of one ADD, in ms: ours {sum(spent.values()):.1f} ({used}), theirs {theirs:.1f}; "
        f"the agent is one interpreter, which at {rate:.0f} ADDs per second is busy "
        f"{spent['agent'] * rate / 10:.0f}% of the time"
    )
    lines: list[Measurement] = []

    def line(title: str, pair: Sequence[float], wanted: float | None, unit: str, samples: int) -> None:
        explanation = one_explanation if "one at a time" in title else many_explanation
        lines.append(
            Measurement(
                name=title,
                unit=unit,
                ours=pair[0],
                better="higher" if unit == "per second" else "lower",
                peer_name=PEER,
                peer=pair[1],
                wanted=wanted,
                samples=samples,
                explanation=explanation if wanted is not None and " ADD" in title else "",
            )
        )

    for command, wanted in (("ADD", 1.0), ("DEL", 3.0)):
        one = [times.percentile(50) for times in serial[command]]
        line(f"CNI {command}, one at a time (p50)", one, wanted, "ms", SERIAL)
        tail = [times.percentile(99) for times in serial[command]]
        line(f"CNI {command}, one at a time (p99)", tail, None, "ms", SERIAL)
    lines.append(share)
    promises: dict[str, float | None] = {"ADD": 2.0, "DEL": None}
    for command, promised in promises.items():
        count, many = CONCURRENT * ROUNDS, concurrent[command]
        for hundredth in (50, 99):
            pair = [times.percentile(hundredth) for times in many]
            kept = promised if hundredth == 99 else None
            line(f"CNI {command}, {CONCURRENT} at a time (p{hundredth})", pair, kept, "ms", count)
        rates = [statistics.median(times.rates) for times in many]
        line(f"CNI {command}, {CONCURRENT} at a time (throughput)", rates, promised, "per second", count)
    return lines


if __name__ == "__main__":
    for found in measure():
        print(found.name, round(found.ours, 2), found.peer and round(found.peer, 2), found.unit, found.ratio)
