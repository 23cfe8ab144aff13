"""Asking the probe pods of one node over HTTP: the questions, their order and their patience."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    ClusterFacts,
    PeerProbe,
    PodInterface,
    PodState,
    ProbeFacts,
    ServiceProbe,
)

Json = dict[str, Any]
Ask = Callable[[str, int, str, float], Json]  # address, port, path with query, seconds -> answer

WORKERS = 16  # questions at once from one node; each is a few packets
RETRY_PAUSE = 0.25  # seconds
ANSWER_SECONDS = 15  # more than the probe itself gives any one attempt
ATTEMPT_SECONDS = 2  # what the probe gives one packet or connection
PMTU_SECONDS = 60  # a search: 2 + log2(1500) sizes, each twice when lost
SMALLEST_ECHO = 28  # bytes: IPv4 and ICMP headers


class ProbeError(Exception):
    """A probe pod did not answer, or refused the question. The text is a sentence."""


def ask(address: str, port: int, path: str, seconds: float) -> Json:
    """The JSON answer of the probe at `address`. Raise ProbeError."""
    connection = http.client.HTTPConnection(address, port, timeout=seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ProbeError(f"the probe at {address}:{port} does not answer {path}: {error}") from error
    finally:
        connection.close()
    if response.status != 200 or not isinstance(body, dict):
        raise ProbeError(f"the probe at {address}:{port} refuses {path}: {body}")
    return body


class Prober:
    """The source pod of one node. `settle`: seconds for which what does not work yet is tried again."""

    def __init__(self, source: PodState, port: int, settle: float, asker: Ask = ask) -> None:
        self._source = source
        self._port = port
        self._settle = settle
        self._ask = asker

    def question(self, path: str, query: Json, patience: float = ANSWER_SECONDS) -> Json:
        """One question to the source pod; it answers within `patience` seconds or ProbeError is raised."""
        return self._ask(self._source["address"], self._port, f"{path}?{urlencode(query)}", patience)

    def until(self, holds: Callable[[Json], bool], path: str, query: Json) -> Json:
        """Ask until the answer holds or the time to settle is over; the last answer."""
        deadline = time.monotonic() + self._settle
        answer = self.question(path, query)
        while not holds(answer) and time.monotonic() < deadline:
            time.sleep(RETRY_PAUSE)
            answer = self.question(path, query)
        return answer

    def peer(self, target: PodState, high: int) -> PeerProbe:
        """TCP, ICMP and path MTU to one target pod; `high` is one byte more than the source's own MTU."""
        host = {"host": target["address"], "seconds": ATTEMPT_SECONDS}
        fetched = self.until(lambda a: bool(a["connected"]), "/fetch", {**host, "port": self._port})
        echoed = self.until(lambda a: bool(a["outcome"] == "reply"), "/icmp", host)
        replied = bool(echoed["outcome"] == "reply")
        searched: Json = {"largest": 0, "above": "", "detail": ""}
        if replied:
            sizes = {**host, "seconds": 1, "low": SMALLEST_ECHO, "high": high}
            searched = self.question("/pmtu", sizes, PMTU_SECONDS)
        return PeerProbe(
            tcp=fetched["connected"],
            tcp_detail=fetched["detail"],
            seen_as=fetched.get("answer", {}).get("client", ""),
            icmp=replied,
            icmp_detail=echoed["detail"],
            largest=searched["largest"] or 0,
            above=searched["above"] or "",
            mtu_detail=searched["detail"],
        )

    def service(self, host: str, port: int) -> ServiceProbe:
        """A TCP connection to a service."""
        query = {"host": host, "port": port, "seconds": ATTEMPT_SECONDS}
        answer = self.until(lambda a: bool(a["connected"]), "/tcp", query)
        return ServiceProbe(connected=answer["connected"], detail=answer["detail"])

    def resolve(self, name: str) -> Json:
        """The addresses of a name, as /resolve answers."""
        return self.until(lambda a: bool(a["addresses"]), "/resolve", {"name": name, "seconds": 5})


def probe(cluster: ClusterFacts, node: str, dns_name: str, settle: float, asker: Ask = ask) -> ProbeFacts:
    """Everything that the pods of `node` can tell. What did not work stands in `errors`."""
    facts = ProbeFacts(
        interfaces={}, peers={}, services={}, dns_addresses=[], dns_detail="", fragments=-1, errors=[]
    )
    own = {
        role: next((pod for pod in pods if pod["node"] == node and pod["ready"]), None)
        for role, pods in (("source", cluster["sources"]), ("target", cluster["targets"]))
    }
    source = own["source"]
    for role, pod in own.items():
        if pod is None:
            facts["errors"].append(f"node {node or '(no nodename file)'} has no Ready {role} pod")
            continue
        try:
            facts["interfaces"][role] = _interface(
                asker(pod["address"], cluster["probe_port"], "/interface", 10)
            )
        except ProbeError as error:
            facts["errors"].append(str(error))
    if source is None or "source" not in facts["interfaces"]:
        return facts
    prober = Prober(source, cluster["probe_port"], settle, asker)
    high = facts["interfaces"]["source"]["mtu"] + 1
    targets = [pod for pod in cluster["targets"] if pod["ready"] and pod["address"]]
    services = {
        name: endpoint
        for name, endpoint in (
            ("tortie-verify", cluster["probe_service"]),
            ("kubernetes", cluster["kubernetes_service"]),
        )
        if endpoint is not None
    }
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        peers = {pod["node"]: pool.submit(prober.peer, pod, high) for pod in targets}
        reached = {name: pool.submit(prober.service, e["address"], e["port"]) for name, e in services.items()}
        for name, peer in peers.items():
            try:
                facts["peers"][name] = peer.result()
            except ProbeError as error:
                facts["errors"].append(str(error))
        for name, service in reached.items():
            try:
                facts["services"][name] = service.result()
            except ProbeError as error:
                facts["errors"].append(str(error))
    if cluster["dns_service"] is not None and cluster["dns_service"]["ready"]:
        _resolve(prober, dns_name, facts)
    return facts


def _resolve(prober: Prober, name: str, facts: ProbeFacts) -> None:
    try:
        answer = prober.resolve(name)
    except ProbeError as error:
        facts["errors"].append(str(error))
        return
    facts["dns_addresses"], facts["dns_detail"] = answer["addresses"], answer["detail"]


def _interface(answer: Json) -> PodInterface:
    return PodInterface(
        name=answer["name"],
        mtu=answer["mtu"],
        mac=answer["mac"],
        address=answer["address"],
        routes=answer["routes"],
        neighbours=answer["neighbours"],
    )
