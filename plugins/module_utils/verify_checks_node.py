"""Layers that are about one node at a time: nodes, pool, address, tunnel, block, masquerade."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface, IPv4Network

from ansible_collections.tortie.cluster.plugins.module_utils.verify_check import (
    IPIP_DEVICE,
    VXLAN_DEVICE,
    VXLAN_PORT,
    VXLAN_VNI,
    Check,
    Subject,
    View,
    encapsulation,
    mode,
)
from ansible_collections.tortie.cluster.plugins.module_utils.verify_shapes import Link, Pool

NO_FACTS = "no facts of the node were collected"
MODES = {"always": "Always", "cross-subnet": "CrossSubnet"}


def check_nodes(view: View) -> list[Check]:
    """The API server answers; every host is a Ready node with a Ready agent, and its facts could be read."""
    cluster = Subject("nodes")
    checks = [
        cluster.judge(
            "API server answers",
            not view.cluster["errors"] and bool(view.cluster["nodes"]),
            "nodes, pools, block affinities and pods",
            view.cluster["errors"] or f"{len(view.cluster['nodes'])} nodes",
            "on the first control plane: systemctl status kubelet; "
            "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes",
        )
    ]
    for host in view.strangers if view.cluster["nodes"] else ():
        checks.append(
            Subject("nodes", host).judge(
                "is a node",
                False,
                "a node of the cluster",
                "no node of this name, address or nodename file",
                f"run site.yml with --limit including {host}, or take it out of the inventory",
            )
        )
    for name in view.names:
        checks += _check_node(view, name)
    return checks


def _check_node(view: View, name: str) -> list[Check]:
    subject = Subject("nodes", name)
    node = view.node(name)
    agent = next((pod for pod in view.cluster["agents"] if pod["node"] == name), None)
    checks = [
        subject.judge(
            "Ready",
            node["ready"],
            "Ready",
            "Ready" if node["ready"] else f"not Ready: {node['reason']}",
            f"kubectl describe node {name}; on {name}: journalctl -u kubelet",
        ),
        subject.judge(
            "calico-node Ready",
            agent is not None and agent["ready"],
            "Ready",
            "no pod" if agent is None else "Ready" if agent["ready"] else f"not Ready: {agent['reason']}",
            "kubectl -n kube-system logs --all-containers "
            f"{agent['name'] if agent else 'daemonset/calico-node'}",
        ),
    ]
    if name not in view.hosts:
        checks.append(subject.skip("facts", "the node is not in the inventory"))
    elif name not in view.facts:
        checks.append(
            subject.judge(
                "facts",
                False,
                "facts collected over Ansible",
                "none: unreachable, or the module failed",
                f"ansible {view.hosts[name]} -m ansible.builtin.ping",
            )
        )
    else:
        errors = view.facts[name]["errors"]
        checks.append(
            subject.judge(
                "facts",
                not errors,
                "everything readable",
                errors or "everything readable",
                f"run as root on {name}",
            )
        )
    return checks


def check_pool(view: View) -> list[Check]:
    """The datastore's pool is the inventory's."""
    subject = Subject("pool")
    expect = view.expect
    if not expect["pool_cidr"]:
        return [subject.skip("pool", "the inventory does not say tortie_ipv4pool_cidr")]
    hint = (
        "the pool is created once, by the first node; changing the variable later does not change it: "
        "kubectl get ippools.crd.projectcalico.org -o yaml"
    )
    pool = next((p for p in view.cluster["pools"] if p["cidr"] == expect["pool_cidr"]), None)
    checks = [
        subject.judge(
            "cidr", pool is not None, expect["pool_cidr"], [p["cidr"] for p in view.cluster["pools"]], hint
        )
    ]
    return checks if pool is None else checks + _pool_fields(view, pool, hint)


def _pool_fields(view: View, pool: Pool, hint: str) -> list[Check]:
    subject, expect = Subject("pool"), view.expect
    checks = [subject.compare("enabled", "enabled", "disabled" if pool["disabled"] else "enabled", hint)]
    if expect["block_size"]:
        checks.append(subject.compare("block size", expect["block_size"], pool["block_size"], hint))
    if expect["encapsulation"]:
        checks.append(subject.compare("encapsulation", expect["encapsulation"], encapsulation(pool), hint))
    if expect["mode"] and expect["encapsulation"] in ("ipip", "vxlan"):
        checks.append(subject.compare("mode", MODES.get(expect["mode"], expect["mode"]), mode(pool), hint))
    if expect["nat_outgoing"] is not None:
        checks.append(subject.compare("natOutgoing", expect["nat_outgoing"], pool["nat_outgoing"], hint))
    return checks


def check_address(view: View) -> list[Check]:
    """The address in each node's annotation is on a link of the node, and on the one asked for."""
    checks = []
    for name in view.names:
        checks += _check_address(view, name)
    return checks


def _check_address(view: View, name: str) -> list[Check]:
    subject = Subject("address", name)
    annotation = view.node(name)["annotations"].get("IPv4Address", "")
    hint = (
        f"kubectl -n kube-system logs -l k8s-app=calico-node: why {name} chose it; "
        "tortie_ip_autodetection_method, kubernetes_node_ip"
    )
    interface = view.interface(name)
    if interface is None:
        return [subject.judge("annotation", False, "projectcalico.org/IPv4Address", annotation, hint)]
    wanted = view.expect["hosts"].get(view.hosts.get(name, ""), "") or view.node(name)["internal_ip"]
    checks = [subject.compare("node address", wanted, str(interface.ip), hint)]
    if name not in view.facts:
        return [*checks, subject.skip("link", NO_FACTS)]
    device, link = view.link(name)
    held = link["addresses"] if link else []
    checks.append(
        subject.judge(
            "on a link",
            str(interface) in held,
            f"{interface} on a link",
            f"{device} {', '.join(held)}".strip(),
            hint,
        )
    )
    checks.append(_check_method(view, subject, device, interface, hint))
    return checks


def _check_method(view: View, subject: Subject, device: str, interface: IPv4Interface, hint: str) -> Check:
    """What can be proven of IP_AUTODETECTION_METHOD: first-found and can-reach name nothing to compare."""
    what = "autodetection"
    method = view.expect["autodetection"]
    name, _equals, argument = method.partition("=")
    values = [value.strip() for value in argument.split(",") if value.strip()]
    if name == "interface":
        return subject.judge(what, any(re.search(v, device) for v in values), method, device, hint)
    if name == "skip-interface":
        return subject.judge(what, not any(re.search(v, device) for v in values), method, device, hint)
    if name == "cidr":
        inside = any(interface.ip in IPv4Network(value, strict=False) for value in values)
        return subject.judge(what, inside, method, interface, hint)
    if name == "kubernetes-internal-ip":
        return subject.compare(what, view.node(subject.node)["internal_ip"], str(interface.ip), hint)
    return subject.skip(what, f"the method {method or '(none)'} names no link or address to compare with")


def check_tunnel(view: View) -> list[Check]:
    """The tunnel device of each encapsulation in use, on every node."""
    if not view.encapsulations:
        return [Subject("tunnel").skip("device", "no pool uses an encapsulation")]
    checks = []
    for name in view.names:
        if name not in view.facts:
            checks.append(Subject("tunnel", name).skip("device", NO_FACTS))
            continue
        for kind in view.encapsulations:
            checks += _check_tunnel(view, name, kind)
    return checks


def _check_tunnel(view: View, name: str, kind: str) -> list[Check]:
    subject = Subject("tunnel", name)
    device = VXLAN_DEVICE if kind == "vxlan" else IPIP_DEVICE
    annotation = "IPv4VXLANTunnelAddr" if kind == "vxlan" else "IPv4IPIPTunnelAddr"
    hint = f"on {name}: ip -d address show dev {device}; kubectl -n kube-system logs -l k8s-app=calico-node"
    link = view.facts[name]["links"].get(device)
    if link is None:
        return [subject.judge(device, False, "the device", "no such device", hint)]
    address = view.node(name)["annotations"].get(annotation, "")
    wanted_mtu = view.expected_mtu(name, kind)
    checks = [
        subject.judge(device, link["up"], "up", "up" if link["up"] else "down", hint),
        subject.judge(
            "tunnel address",
            bool(address) and link["addresses"] == [f"{address}/32"],
            f"{address}/32 only" if address else f"annotation {annotation}",
            link["addresses"],
            hint,
        ),
        subject.compare("tunnel MTU", wanted_mtu, link["mtu"], f"tortie_mtu, {hint}")
        if wanted_mtu
        else subject.skip("tunnel MTU", "the node's link is unknown"),
    ]
    return checks + (_check_vxlan(view, name, link, hint) if kind == "vxlan" else [])


def _check_vxlan(view: View, name: str, link: Link, hint: str) -> list[Check]:
    subject = Subject("tunnel", name)
    vxlan = link["vxlan"]
    if vxlan is None:
        return [subject.judge("kind", False, "vxlan", "another kind of device", hint)]
    parent, _link = view.link(name)
    mac = view.node(name)["annotations"].get("VXLANTunnelMACAddr", "")
    return [
        subject.compare("VNI, port", (VXLAN_VNI, VXLAN_PORT), (vxlan["vni"], vxlan["port"]), hint),
        subject.compare("local", view.address(name), vxlan["local"], hint),
        subject.compare("parent", parent, vxlan["parent"], hint),
        subject.compare("MAC", mac, link["mac"], hint),
    ]


def check_block(view: View) -> list[Check]:
    """Each node holds a block, and drops what it has no pod for inside it."""
    checks = []
    for name in view.names:
        subject = Subject("block", name)
        blocks = view.blocks(name)
        checks.append(
            subject.judge(
                "confirmed affinity",
                bool(blocks),
                "at least one block",
                blocks,
                "kubectl get blockaffinities.crd.projectcalico.org; "
                "tortiectl ipam show --show-blocks: is the pool full?",
            )
        )
        outside = [block for block in blocks if view.pool_of(block) is None]
        if outside:
            hint = "kubectl get ippools.crd.projectcalico.org: was the pool deleted while in use?"
            checks.append(subject.judge("pool", False, "a pool that contains the block", outside, hint))
        if name not in view.facts:
            checks.append(subject.skip("blackhole", NO_FACTS))
            continue
        holes = {route["destination"] for route in view.facts[name]["routes"] if route["kind"] == "blackhole"}
        checks += [
            subject.judge(
                f"blackhole {block}",
                block in holes,
                f"blackhole {block}",
                f"blackhole {block}" if block in holes else "no such route",
                f"on {name}: ip route show type blackhole",
            )
            for block in blocks
            if IPv4Network(block).prefixlen < 32
        ]
    return checks


def check_masquerade(view: View) -> list[Check]:
    """A node masquerades what leaves the pools that ask for it."""
    pools = {pool["cidr"] for pool in view.cluster["pools"] if pool["nat_outgoing"]}
    checks = []
    for name in view.names:
        subject = Subject("masquerade", name)
        facts = view.facts.get(name)
        if facts is None:
            checks.append(subject.skip("rule", NO_FACTS))
            continue
        found = facts["masquerade"]
        if found is None:
            checks.append(subject.skip("rule", facts["masquerade_error"] or "nftables could not be read"))
            continue
        hint = f"on {name}: nft list ruleset | grep -A20 tortie; tortie_nat_outgoing"
        if not pools:
            none = not found["masquerades"]
            checks.append(
                subject.judge("rule", none, "no masquerading", "none" if none else found["tables"], hint)
            )
            continue
        holds = found["masquerades"] and all(_covered(pool, found["networks"]) for pool in pools)
        seen = (
            f"masquerade for {', '.join(found['networks']) or 'nothing'}"
            if found["masquerades"]
            else "no rule"
        )
        checks.append(subject.judge("rule", holds, f"masquerade for {', '.join(sorted(pools))}", seen, hint))
    return checks


def _covered(pool: str, networks: list[str]) -> bool:
    """Whether one of `networks` contains the pool (adjoining pools are one network in nftables)."""
    wanted = IPv4Network(pool)
    return any("/" in network and wanted.subnet_of(IPv4Network(network)) for network in networks)
