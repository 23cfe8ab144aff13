"""Beside the real firewalld, ufw and Docker: each keeps its rules, and policy keeps its word."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import debs

from tests.components.debian_root import DebianRoot, debian_root
from tests.integration.dataplane.policy_lab import Attempt, PolicyLab, policy_lab
from tests.integration.dataplane.policy_states import closed_state
from tortie.dataplane.policy import PolicyDataplane
from tortie.dataplane.policy_forward import COMMENT, allow_forwarding

pytestmark = pytest.mark.root

# What firewalld needs beyond what every Debian has; it is written in Python and talks over D-Bus.
FIREWALLD = (
    *("firewalld", "python3-firewall", "python3-nftables", "python3-cap-ng", "python3-dbus", "python3-gi"),
    *("gir1.2-glib-2.0", "libgirepository-1.0-1", "libdbus-1-3", "dbus-daemon", "dbus-bin", "libglib2.0-0"),
    "libapparmor1",
)
DOCKER = ("docker.io", "containerd", "runc", "libdevmapper1.02.1")
# A bus that everybody in the namespace may use: firewalld's own file only limits who may call it.
BUS = """<busconfig>
<type>system</type>
<listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth>
<policy context="default">
<allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow user="*"/>
</policy>
</busconfig>
"""


@pytest.fixture(scope="module")
def unpacked() -> dict[str, Path]:
    """The packages, fetched before a test is in a namespace that leads nowhere."""
    return {name: debs.extract(name) for name in {*FIREWALLD, *DOCKER, "ufw"}}


@pytest.fixture
def lab(unpacked: dict[str, Path]) -> Iterator[PolicyLab]:
    with policy_lab(("a", "b", "c")) as made, made.on_node:
        yield made


class Guarded:
    """The node with a policy in force: only `b` reaches `a`, everything else is open."""

    def __init__(self, lab: PolicyLab) -> None:
        self.lab = lab
        self.dataplane = PolicyDataplane()
        self.dataplane.sync(closed_state(lab, "a", friends=["b"]))
        tried = lab.everything()
        self.denied = [item for item in tried if item.destination == "a" and item.source != "b"]
        self.allowed = frozenset(tried) - frozenset(self.denied)

    def through(self, expected: frozenset[Attempt]) -> frozenset[Attempt]:
        """Which of all connections come about now."""
        return self.lab.try_all(self.lab.everything(), expected)

    def assert_policy_decides(self) -> None:
        """What is allowed passes, what is denied does not, and nobody changed our table."""
        assert self.through(self.allowed) == self.allowed
        assert self.dataplane.check() == []

    def assert_repair_leaves(self, theirs: Callable[[], list[str]]) -> None:
        """Our table is damaged and repaired, theirs is the same all the while."""
        before = theirs()
        assert before
        self.lab.node.exec("nft", "flush", "table", "inet", "tortie_policy")
        assert self.dataplane.repair()
        allow_forwarding()
        assert theirs() == before
        self.assert_policy_decides()

    def assert_closed_during(self, root: DebianRoot, *command: str) -> None:
        """Nothing that policy denies passes while the command runs."""
        with subprocess.Popen(
            root.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as run:
            rounds = 0
            while run.poll() is None or rounds == 0:
                assert self.lab.try_all(self.denied, frozenset()) == frozenset()
                rounds += 1
            output = run.stdout.read() if run.stdout else b""
        assert run.returncode == 0, output
        assert self.dataplane.check() == []


def without_counters(listing: str) -> list[str]:
    """Rules as text, without what traffic changes."""
    lines = [line.partition("[")[0].rstrip() for line in listing.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


# --- firewalld ----------------------------------------------------------------------------------------------


@pytest.fixture
def firewall(lab: PolicyLab, unpacked: dict[str, Path], tmp_path: Path) -> Iterator[DebianRoot]:
    """A bus, on which firewalld can be started."""
    with debian_root([unpacked[name] for name in FIREWALLD], lab.node.path, tmp_path) as root:
        config = tmp_path / "bus.conf"
        config.write_text(BUS)
        root.run("mkdir", "/run/dbus")
        with root.daemon(
            *("dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"),
            ready=("test", "-S", "/run/dbus/system_bus_socket"),
        ):
            yield root


def firewalld(root: DebianRoot) -> contextlib.AbstractContextManager[None]:
    """It runs and has loaded its rules."""
    return root.daemon("firewalld", "--nofork", "--nopid", ready=("firewall-cmd", "--state"))


def firewalld_rules(lab: PolicyLab) -> list[str]:
    return lab.node.exec("nft", "--stateless", "list", "table", "inet", "firewalld").splitlines()


def test_beside_firewalld_policy_decides_for_pods_in_the_trusted_zone(
    lab: PolicyLab, firewall: DebianRoot
) -> None:
    guarded = Guarded(lab)
    guarded.assert_policy_decides()
    with firewalld(firewall):
        # Interfaces in no zone are in the default zone, which does not forward: theirs is a word of its own.
        assert guarded.through(frozenset()) == frozenset()
        assert guarded.dataplane.check() == []
        firewall.run("firewall-cmd", "--permanent", "--zone=trusted", "--add-interface=cali+")
        guarded.assert_closed_during(firewall, "firewall-cmd", "--reload")
        guarded.assert_policy_decides()
        guarded.assert_closed_during(firewall, "firewall-cmd", "--complete-reload")
        guarded.assert_policy_decides()
        guarded.assert_repair_leaves(lambda: firewalld_rules(lab))
        loaded = firewalld_rules(lab)
    guarded.assert_policy_decides()  # firewalld is gone
    with firewalld(firewall):
        guarded.assert_policy_decides()
        guarded.dataplane.remove()
        assert firewalld_rules(lab) == loaded


def test_policy_loaded_beside_a_running_firewalld_is_in_force_and_survives_its_reload(
    lab: PolicyLab, firewall: DebianRoot
) -> None:
    with firewalld(firewall):
        firewall.run("firewall-cmd", "--permanent", "--zone=trusted", "--add-interface=cali+")
        firewall.run("firewall-cmd", "--reload")
        before = firewalld_rules(lab)
        guarded = Guarded(lab)
        guarded.assert_policy_decides()
        assert firewalld_rules(lab) == before
        guarded.assert_closed_during(firewall, "firewall-cmd", "--reload")
        guarded.assert_policy_decides()


# --- ufw and Docker: iptables' FORWARD chain drops by default -----------------------------------------------


def iptables_rules(lab: PolicyLab) -> list[str]:
    """Everything in iptables but our two rules."""
    listing = lab.node.exec("iptables-save") + lab.node.exec("ip6tables-save")
    return [line for line in without_counters(listing) if COMMENT not in line]


def forward_chain(lab: PolicyLab) -> list[str]:
    return lab.node.exec("iptables", "-S", "FORWARD").splitlines()


def assert_ours_are_last(lab: PolicyLab) -> None:
    listed = forward_chain(lab)
    assert [COMMENT in line for line in listed] == [False] * (len(listed) - 2) + [True, True]


@pytest.fixture
def ufw(lab: PolicyLab, unpacked: dict[str, Path], tmp_path: Path) -> Iterator[DebianRoot]:
    """ufw with the files that its installation puts into /etc; not enabled."""
    with debian_root([unpacked["ufw"]], lab.node.path, tmp_path) as root:
        root.run("sh", "-c", "cd /usr/share/ufw && cp *.rules *.init ufw.conf /etc/ufw/")
        root.run("ufw", "allow", "22/tcp")
        yield root


def test_beside_ufw_policy_decides_and_both_survive_the_others_reload(
    lab: PolicyLab, ufw: DebianRoot
) -> None:
    guarded = Guarded(lab)
    ufw.run("ufw", "--force", "enable")
    assert forward_chain(lab)[0] == "-P FORWARD DROP"
    assert guarded.through(frozenset()) == frozenset()  # ufw routes nothing
    assert guarded.dataplane.check() == []
    assert allow_forwarding()
    assert_ours_are_last(lab)
    guarded.assert_policy_decides()
    guarded.assert_repair_leaves(lambda: iptables_rules(lab))
    for command in (("reload",), ("disable",), ("--force", "enable")):
        guarded.assert_closed_during(ufw, "ufw", *command)
        allow_forwarding()
        guarded.assert_policy_decides()
    guarded.dataplane.remove()
    assert "Status: active" in ufw.run("ufw", "status")


def test_what_ufw_forbids_stays_forbidden_after_its_reload_too(lab: PolicyLab, ufw: DebianRoot) -> None:
    guarded = Guarded(lab)
    ufw.run("ufw", "--force", "enable")
    allow_forwarding()
    ufw.run("ufw", "route", "deny", "proto", "tcp", "from", lab.pods["c"].address)
    expected = frozenset(item for item in guarded.allowed if (item.source, item.protocol) != ("c", 6))
    assert guarded.through(expected) == expected
    for command in (("reload",), ("disable",), ("--force", "enable")):
        ufw.run("ufw", *command)
        allow_forwarding()
    assert guarded.through(expected) == expected
    assert guarded.dataplane.check() == []


def test_beside_docker_policy_decides_and_its_restart_changes_nothing(
    lab: PolicyLab, unpacked: dict[str, Path], tmp_path: Path
) -> None:
    guarded = Guarded(lab)
    lab.node.exec(
        "sysctl", "-q", "-w", "net.ipv4.ip_forward=0"
    )  # else Docker leaves the default verdict alone
    with debian_root([unpacked[name] for name in DOCKER], lab.node.path, tmp_path) as root:
        with dockerd(root):
            assert forward_chain(lab)[0] == "-P FORWARD DROP"
            assert guarded.through(frozenset()) == frozenset()
            assert allow_forwarding()
            assert_ours_are_last(lab)
            guarded.assert_policy_decides()
            guarded.assert_closed_during(
                root, "docker", "network", "create", "--subnet=10.77.0.0/24", "other"
            )
            assert "-s 10.77.0.0/24" in lab.node.exec("iptables", "-t", "nat", "-S")
            guarded.assert_policy_decides()
            assert_ours_are_last(lab)
            guarded.assert_repair_leaves(lambda: iptables_rules(lab))
            loaded = sorted(iptables_rules(lab))
        guarded.assert_policy_decides()  # Docker's rules stay when it stops
        with dockerd(root):
            assert_ours_are_last(lab)
            assert allow_forwarding() == []
            guarded.assert_policy_decides()
            assert sorted(iptables_rules(lab)) == loaded


def dockerd(root: DebianRoot) -> contextlib.AbstractContextManager[None]:
    """It runs and has loaded its rules. Storage without the kernel's help: an overlay may not do here."""
    return root.daemon("dockerd", "--storage-driver=vfs", ready=("docker", "info"))
