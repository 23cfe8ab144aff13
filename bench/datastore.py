"""Ten thousand pods from a real API server: time to list and decode, and peak memory.

    .venv/bin/python -m bench.datastore

Each run is a process of its own, so that its peak memory is its own; ours and the baseline (the same answers
read with the standard library's json into dicts) take turns. The time is that of the list alone, without the
interpreter's start and imports.
"""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from tests.components import apiserver
from tests.components.apiserver import ApiServer

from bench.measurement import Measurement
from tortie.datastore.config import ClusterConfig, from_kubeconfig
from tortie.datastore.kubernetes import connect
from tortie.model.resources import Pod

PODS: Final = 10_000
ROUNDS: Final = 5
TIME_LIMIT: Final = 1.0  # seconds
MEMORY_LIMIT: Final = 150.0  # MB
_AT_ONCE: Final = 64
_PAGE_SIZE: Final = 500


class Run(msgspec.Struct):
    """One process: seconds for the list by the clock and of its own CPU, peak resident memory in MB, pods."""

    seconds: float
    cpu: float
    megabytes: float
    count: int


def measure() -> list[Measurement]:
    """Start an API server, fill it, list."""
    with tempfile.TemporaryDirectory() as directory, apiserver.running(Path(directory)) as server:
        asyncio.run(_fill(server))
        ours: list[Run] = []
        peer: list[Run] = []
        for _round in range(ROUNDS):
            ours.append(_run("ours", server.kubeconfig))
            peer.append(_run("json", server.kubeconfig))
    for run in (*ours, *peer):
        if run.count != PODS:
            raise RuntimeError(f"A list has {run.count} pods instead of {PODS}.")
    name = "the standard library's json, dicts"
    return [
        Measurement(
            name="list and decode 10,000 pods",
            unit="s",
            ours=statistics.median(run.seconds for run in ours),
            peer_name=name,
            peer=statistics.median(run.seconds for run in peer),
            limit=TIME_LIMIT,
            samples=ROUNDS,
            explanation="the rest of the time is the API server's: it reads and encodes 20 pages in turn",
        ),
        Measurement(
            name="client's CPU to list and decode 10,000 pods",
            unit="s",
            ours=statistics.median(run.cpu for run in ours),
            peer_name=name,
            peer=statistics.median(run.cpu for run in peer),
            limit=TIME_LIMIT,
            samples=ROUNDS,
        ),
        Measurement(
            name="peak memory with 10,000 pods",
            unit="MB",
            ours=max(run.megabytes for run in ours),
            peer_name=name,
            peer=max(run.megabytes for run in peer),
            limit=MEMORY_LIMIT,
            samples=ROUNDS,
        ),
    ]


def _run(what: str, kubeconfig: Path) -> Run:
    command = [sys.executable, "-m", "bench.datastore", what, str(kubeconfig)]
    answer = subprocess.run(command, check=True, capture_output=True)
    return msgspec.json.decode(answer.stdout, type=Run)


def pod(number: int) -> dict[str, Any]:
    """A pod as a Deployment makes them, about 3.5 kB with what the server adds."""
    name = f"web-7d4b9c6f8d-{number:05}"
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 2}
    container = {
        "name": "web",
        "image": "registry.example.org/team/web:1.2.3",
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": f"SETTING_{index}", "value": f"value-{index}"} for index in range(8)],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "livenessProbe": probe,
        "readinessProbe": probe,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/web", "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": "web", "pod-template-hash": "7d4b9c6f8d", "tier": f"t{number % 7}"},
            "annotations": {
                "cni.projectcalico.org/podIP": f"10.5.{number // 250}.{number % 250}/32",
                "cni.projectcalico.org/podIPs": f"10.5.{number // 250}.{number % 250}/32",
            },
        },
        "spec": {
            "nodeName": f"node-{number % 100}",
            "serviceAccountName": "web",
            "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}],
        },
    }


async def _fill(server: ApiServer) -> None:
    config = from_kubeconfig(server.kubeconfig)
    numbers = iter(range(PODS))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=config.tls or True)) as session:

        async def create() -> None:
            for number in numbers:
                await _create(session, config, pod(number))

        async with asyncio.TaskGroup() as group:
            for _worker in range(_AT_ONCE):
                group.create_task(create())


async def _create(session: aiohttp.ClientSession, config: ClusterConfig, body: dict[str, Any]) -> None:
    path = f"{config.server}/api/v1/namespaces/default/pods"
    async with session.post(path, json=body, headers=config.token.header()) as answer:
        if answer.status != 201:
            raise RuntimeError(f"The API server refused a pod: {await answer.text()}")


async def _list_ours(kubeconfig: Path) -> Run:
    async with await connect(kubeconfig) as store:
        start, cpu = time.perf_counter(), time.process_time()
        listing = await store.list(Pod)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Run(seconds, cpu, _peak(), len(listing.items))


async def _list_json(kubeconfig: Path) -> Run:
    config = from_kubeconfig(kubeconfig)
    items: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=config.tls or True)) as session:
        start, cpu = time.perf_counter(), time.process_time()
        params = {"limit": str(_PAGE_SIZE)}
        while True:
            path = f"{config.server}/api/v1/pods"
            async with session.get(path, params=params, headers=config.token.header()) as answer:
                page = json.loads(await answer.read())
            items += page["items"]
            if not page["metadata"].get("continue"):
                break
            params["continue"] = page["metadata"]["continue"]
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Run(seconds, cpu, _peak(), len(items))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # the kernel counts in KiB


def main(arguments: list[str]) -> None:
    """Without arguments measure; else be one run: `ours` or `json`, and a kubeconfig."""
    if arguments:
        what, kubeconfig = arguments
        run = asyncio.run((_list_ours if what == "ours" else _list_json)(Path(kubeconfig)))
        sys.stdout.buffer.write(msgspec.json.encode(run))
        return
    for item in measure():
        print(
            f"{item.name}: {item.ours:.2f} {item.unit}, {item.peer_name}: {item.peer:.2f}, kept: {item.kept}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
