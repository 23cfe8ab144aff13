"""The agent's own share of an ADD, in milliseconds, one line each: run by bench/cni.py.

Requests go straight to the plugin's core, which makes real interfaces and has each pod's policy put in force
by the agent's own policy loop, out of POLICIES policies. What the agent watches it knows; the datastore that
it writes to is in memory, and the time inside it is taken off.
"""

import asyncio
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tortie.agent.health import Health
from tortie.agent.metrics import Metrics
from tortie.agent.policy import PolicyAgent, PolicySources
from tortie.agent.policy_work import PolicyWorker
from tortie.cni.cluster import Watched
from tortie.cni.plugin import Plugin
from tortie.dataplane import netns
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.workload import Workloads
from tortie.datastore import codec
from tortie.datastore.interface import R
from tortie.datastore.memory import MemoryDatastore
from tortie.ipam.allocator import Allocator
from tortie.model.policy_natives import KubernetesNetworkPolicy, Namespace
from tortie.model.resources import (
    ClusterInformation,
    ClusterInformationSpec,
    IPPool,
    IPPoolSpec,
    Metadata,
    Node,
    Pod,
    PodSpec,
)

SAMPLES: Final = 60
WARM_UP: Final = 5
POLICIES: Final = 100  # each for a tenth of the pods, from another tenth
NODE: Final = "bench-node"
CONFIG: Final = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calico"}


class Timed(MemoryDatastore):
    """Adds up the seconds that its callers wait for their writes, which follow one another."""

    seconds = 0.0

    async def create(self, resource: R) -> R:
        began = time.perf_counter()
        try:
            return await super().create(resource)
        finally:
            self.seconds += time.perf_counter() - began

    async def update(self, resource: R) -> R:
        began = time.perf_counter()
        try:
            return await super().update(resource)
        finally:
            self.seconds += time.perf_counter() - began


async def _populate(datastore: MemoryDatastore, pods: int) -> None:
    await datastore.create(Node(metadata=Metadata(name=NODE)))
    ready = ClusterInformationSpec(datastore_ready=True)
    await datastore.create(ClusterInformation(metadata=Metadata(name="default"), spec=ready))
    await datastore.create(IPPool(metadata=Metadata(name="pool"), spec=IPPoolSpec(cidr="10.5.0.0/16")))
    await datastore.create(Namespace(metadata=Metadata(name="default")))
    for number in range(POLICIES):
        await datastore.create(_policy(number))
    for number in range(pods):
        labels = {"app": f"app-{number % 10}"}
        metadata = Metadata(name=f"pod-{number}", namespace="default", labels=labels)
        await datastore.create(Pod(metadata=metadata, spec=PodSpec(node_name=NODE)))


def _policy(number: int) -> KubernetesNetworkPolicy:
    own, other = ({"matchLabels": {"app": f"app-{digit}"}} for digit in (number % 10, number // 10))
    spec = {"podSelector": own, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": other}]}]}
    body = {"metadata": {"name": f"policy-{number}", "namespace": "default"}, "spec": spec}
    return codec.decode(KubernetesNetworkPolicy, json.dumps(body).encode())


def _payload(number: int, uid: str) -> bytes:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": f"c{number:060x}",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "passed",
        "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-{number};K8S_POD_UID={uid}",
    }
    head = b"\0".join(f"{key}={value}".encode() for key, value in environment.items())
    return head + b"\0\0" + json.dumps(CONFIG).encode()


async def _ip(*words: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *words)
    if await process.wait():
        raise RuntimeError(f"ip {' '.join(words)} failed")


async def _measure(directory: Path) -> list[float]:
    datastore = Timed()
    count = SAMPLES + WARM_UP
    await _populate(datastore, count)
    pods = {pod.metadata.name: pod for pod in (await datastore.list(Pod)).items}
    information = await datastore.get(ClusterInformation, "default")
    watched = Watched(
        pod=lambda _, name: pods[name],
        namespace=lambda name: Namespace(metadata=Metadata(name=name)),
        information=lambda: information,
    )
    sources = PolicySources(datastore)
    policy = PolicyAgent(
        sources=sources,
        worker=PolicyWorker(NODE, PolicyDataplane()),
        interfaces=dict,
        health=Health(["policy"]),
        metrics=Metrics(),
    )
    loops = [asyncio.create_task(loop) for loop in (*(item.run() for item in sources.all), policy.run())]
    await policy.in_force.wait()
    plugin = Plugin(
        node=NODE,
        datastore=datastore,
        allocator=Allocator(datastore, NODE),
        workloads=Workloads(),
        journal_dir=directory,
        default_mtu=lambda: 1450,
        policy=policy,
        watched=watched,
    )
    found: list[float] = []
    for number in range(count):
        name = f"tC-share-{number}"
        await _ip("netns", "add", name)
        descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            payload = _payload(number, pods[f"pod-{number}"].metadata.uid)
            began, inside = time.perf_counter(), datastore.seconds
            status, output = await plugin.handle(payload, descriptor, os.getpid())
            found.append((time.perf_counter() - began - (datastore.seconds - inside)) * 1000)
            if status:
                raise RuntimeError(output.decode())
        finally:
            os.close(descriptor)
            await _ip("netns", "del", name)
    await plugin.close()
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
    return found[WARM_UP:]


def main() -> None:
    """Print the samples."""
    host = f"tC-share-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", host], check=True)
    try:
        with (
            tempfile.TemporaryDirectory() as directory,
            Path(f"/run/netns/{host}").open("rb") as handle,
            netns.entered(handle.fileno()),
        ):
            print(*asyncio.run(_measure(Path(directory))))
    finally:
        subprocess.run(["ip", "netns", "del", host], check=True)


if __name__ == "__main__":
    main()
