"""Layers that pods see: pod, mtu, service, dns."""

from __future__ import annotations

from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import Check, Subject, View
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import (
    Endpoint,
    PeerProbe,
    PodState,
    ProbeFacts,
)

POD_GATEWAY = "169.254.1.1"
NO_PROBE = "the probing pod of the node could not be asked"
KUBERNETES, PROBE = "kubernetes", "tortie-verify"


def check_pod(view: View) -> list[Check]:
    """Probe pods run on every node and reach each other, on one node too, by TCP and ICMP, untranslated."""
    checks = []
    for name in view.names:
        checks += _check_probes(view, name)
    for name in view.names:
        for peer in view.names:
            checks += _check_pair(view, Subject("pod", name, peer))
    return checks


def _check_probes(view: View, name: str) -> list[Check]:
    subject = Subject("pod", name)
    checks = [
        _check_running(subject, "source", view.source(name)),
        _check_running(subject, "target", view.target(name)),
    ]
    probe = view.probes.get(name)
    if probe is None:
        return [*checks, subject.skip("probe", NO_PROBE)]
    hint = f"on {name}: journalctl -u kubelet; curl http://<pod address>/healthz; ip route get <pod address>"
    checks.append(
        subject.judge("probe answers", not probe["errors"], "answers", probe["errors"] or "answers", hint)
    )
    for role, interface in sorted(probe["interfaces"].items()):
        pod = view.source(name) if role == "source" else view.target(name)
        routes = {(route["destination"], route["gateway"]) for route in interface["routes"]}
        wiring = f"on {name}: nsenter into the pod, ip address, ip route; ls /var/log/containers/calico-node*"
        checks += [
            subject.compare(
                f"{role} address", f"{pod['address'] if pod else ''}/32", interface["address"], wiring
            ),
            subject.judge(
                f"{role} default route",
                ("0.0.0.0/0", POD_GATEWAY) in routes,
                f"default via {POD_GATEWAY}",
                [f"{destination} via {gateway or 'link'}" for destination, gateway in routes],
                wiring,
            ),
        ]
    return checks


def _check_running(subject: Subject, role: str, pod: PodState | None) -> Check:
    ready = pod is not None and pod["ready"]
    found = "no pod" if pod is None else "Ready" if ready else f"not Ready: {pod['reason']}"
    hint = f"kubectl describe pod on {subject.node}; CNI errors stand in its events"
    return subject.judge(f"{role} pod", ready, "Ready", found, hint)


def _peer_probe(view: View, subject: Subject) -> PeerProbe | None:
    probe: ProbeFacts | None = view.probes.get(subject.node)
    return probe["peers"].get(subject.peer) if probe else None


def _why_not(view: View, subject: Subject) -> str:
    target = view.target(subject.peer)
    if target is None or not target["ready"]:
        return f"the target pod of {subject.peer} is not Ready"
    return NO_PROBE


def _check_pair(view: View, subject: Subject) -> list[Check]:
    probe = _peer_probe(view, subject)
    if probe is None:
        return [subject.skip("TCP, ICMP", _why_not(view, subject))]
    source = view.source(subject.node)
    hint = (
        f"on {subject.peer} and {subject.node}: tcpdump -ni any host {source['address'] if source else ''}; "
        "is UDP 4789 (VXLAN) or IP protocol 4 (IP-in-IP) open between the nodes?"
    )
    return [
        subject.judge(
            "TCP", probe["tcp"], "an answer", "an answer" if probe["tcp"] else probe["tcp_detail"], hint
        ),
        subject.judge(
            "ICMP", probe["icmp"], "a reply", "a reply" if probe["icmp"] else probe["icmp_detail"], hint
        ),
        subject.compare(
            "source address",
            source["address"] if source else "",
            probe["seen_as"],
            f"traffic between pods must not be masqueraded; on {subject.node}: nft list ruleset",
        )
        if probe["tcp"]
        else subject.skip("source address", "TCP failed"),
    ]


def check_mtu(view: View) -> list[Check]:
    """eth0, the node's mtu file, and what really passes with the don't-fragment flag agree to the byte."""
    checks = []
    for name in view.names:
        checks += _check_node_mtu(view, name)
    for name in view.names:
        for peer in view.names:
            checks += _check_path(view, Subject("mtu", name, peer))
    return checks


def _check_node_mtu(view: View, name: str) -> list[Check]:
    subject, wanted = Subject("mtu", name), view.pod_mtu(name)
    if name not in view.facts or not wanted:
        return [subject.skip("eth0", "the node's link is unknown")]
    hint = f"tortie_mtu; on {name}: cat /var/lib/calico/mtu; pods made before a change keep their MTU"
    checks = [subject.compare("/var/lib/calico/mtu", wanted, view.facts[name]["mtu_file"], hint)]
    device, link = view.link(name)
    if link is not None:
        room = link["mtu"] - _overhead(view)
        checks.append(
            subject.judge(
                "fits the link",
                wanted <= room,
                f"at most {room} on {device}",
                wanted,
                f"set tortie_mtu to {room} or less, or raise the MTU of {device}",
            )
        )
    probe = view.probes.get(name)
    if probe is None:
        return [*checks, subject.skip("eth0", NO_PROBE)]
    for role, interface in sorted(probe["interfaces"].items()):
        checks.append(subject.compare(f"{role} eth0", wanted, interface["mtu"], hint))
    if probe["fragments"] < 0:
        checks.append(subject.skip("fragments", "/proc/net/snmp could not be read"))
    else:
        checks.append(
            subject.compare(
                "fragments created",
                0,
                probe["fragments"],
                f"the outer packet does not fit the link of {name}: tunnel MTU too large for it",
            )
        )
    return checks


def _overhead(view: View) -> int:
    sizes = {"ipip": 20, "vxlan": 50}
    return max((sizes[kind] for kind in view.encapsulations), default=0)


def _check_path(view: View, subject: Subject) -> list[Check]:
    probe = _peer_probe(view, subject)
    if probe is None:
        return [subject.skip("largest packet", _why_not(view, subject))]
    if not probe["icmp"]:
        return [subject.skip("largest packet", "ICMP failed")]
    wanted = min(view.pod_mtu(subject.node), view.pod_mtu(subject.peer))
    if not wanted:
        return [subject.skip("largest packet", "the link of one of the nodes is unknown")]
    hint = (
        "a link on the way has a smaller MTU, or drops ICMP fragmentation needed: "
        f"compare ip link on {subject.node}, {subject.peer} and the switch between them"
    )
    return [
        subject.compare("largest packet", wanted, probe["largest"], f"{probe['mtu_detail']} {hint}".strip()),
        subject.judge(
            "one byte more",
            probe["above"] == "emsgsize",
            "refused (message too long)",
            {"emsgsize": "refused (message too long)", "": "not tried"}.get(probe["above"], probe["above"]),
            hint,
        ),
    ]


def check_service(view: View) -> list[Check]:
    """A pod on every node reaches the probe service and the API server by their service addresses."""
    checks = []
    for name in view.names:
        for service, endpoint in (
            (PROBE, view.cluster["probe_service"]),
            (KUBERNETES, view.cluster["kubernetes_service"]),
        ):
            checks.append(_check_service(view, Subject("service", name), service, endpoint))
    return checks


def _check_service(view: View, subject: Subject, service: str, endpoint: Endpoint | None) -> Check:
    what = f"service {service}"
    hint = (
        "kubectl -n kube-system get pods -l k8s-app=kube-proxy; "
        f"on {subject.node}: iptables-save -t nat | grep {service}"
    )
    if endpoint is None or not endpoint["ready"]:
        return subject.judge(what, False, "a service with an endpoint", "no service or no endpoint", hint)
    probe = view.probes.get(subject.node)
    result = probe["services"].get(service) if probe else None
    if result is None:
        return subject.skip(what, NO_PROBE)
    where = f"{endpoint['address']}:{endpoint['port']}"
    return subject.judge(
        what,
        result["connected"],
        f"{where} connects",
        f"{where} connects" if result["connected"] else result["detail"],
        hint,
    )


def check_dns(view: View) -> list[Check]:
    """Where a cluster DNS runs, a pod on every node resolves the API server's name to its service address."""
    dns, api = view.cluster["dns_service"], view.cluster["kubernetes_service"]
    if dns is None:
        return [Subject("dns").skip("kubernetes.default.svc", "the cluster has no kube-dns service")]
    checks = []
    for name in view.names:
        subject = Subject("dns", name)
        probe = view.probes.get(name)
        hint = "kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide"
        if not dns["ready"]:
            found = "the service has no endpoint"
            checks.append(subject.judge("kubernetes.default.svc", False, "a running CoreDNS", found, hint))
        elif probe is None:
            checks.append(subject.skip("kubernetes.default.svc", NO_PROBE))
        else:
            wanted = [api["address"]] if api else []
            found_names = probe["dns_addresses"] or probe["dns_detail"]
            holds = bool(wanted) and probe["dns_addresses"] == wanted
            checks.append(subject.judge("kubernetes.default.svc", holds, wanted, found_names, hint))
    return checks
