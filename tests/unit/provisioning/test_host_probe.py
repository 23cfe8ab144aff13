"""What the probe reads out of a machine's files and commands."""

import json
from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import host

IP_ADDRESS = json.dumps(
    [
        {
            "ifname": "lo",
            "mtu": 65536,
            "flags": ["LOOPBACK", "UP"],
            "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}],
        },
        {},
        {
            "ifname": "eth0",
            "mtu": 1500,
            "flags": ["BROADCAST", "UP"],
            "linkinfo": {"info_kind": "veth"},
            "addr_info": [
                {"family": "inet", "local": "10.30.200.1", "prefixlen": 24},
                {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
                {"family": "inet", "local": "10.30.200.9", "prefixlen": 32},
            ],
        },
        {"ifname": "eth1", "mtu": 9000, "flags": ["BROADCAST"], "addr_info": []},
    ]
)

PROC_NET_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11111
   1: 0100007F:0016 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 22222
   2: 00000000:280A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 33333
"""


def test_links_have_ipv4_addresses_in_kernel_order() -> None:
    links = host.parse_links(IP_ADDRESS)
    assert [link["name"] for link in links] == ["lo", "eth0", "eth1"]
    assert links[1] == {
        "name": "eth0",
        "mtu": 1500,
        "kind": "veth",
        "up": True,
        "addresses": ["10.30.200.1/24", "10.30.200.9/32"],
    }
    assert not links[2]["up"]


def test_only_listening_sockets_count() -> None:
    assert host.parse_listeners(PROC_NET_TCP) == {6443: "11111", 10250: "33333"}


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "Debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "Debian"),
        ('ID="linuxmint"\nID_LIKE="ubuntu debian"\n', "Debian"),
        ('ID="centos"\nID_LIKE="rhel fedora"\n', "RedHat"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "RedHat"),
        ("ID=fedora\n", "RedHat"),
        ("ID=alpine\n", "alpine"),
        ("# nothing\n", "unknown"),
    ],
)
def test_family_of_the_distribution(text: str, family: str) -> None:
    assert host.os_family(host.parse_os_release(text)) == family


def test_installed_packages_are_those_that_dpkg_calls_installed() -> None:
    text = (
        "socat\t1.7.4\tinstall ok installed\n"
        "old\t1.0\tdeinstall ok config-files\n"
        "kubelet\t1.31.4-1.1\thold ok installed\n"
    )
    assert host.parse_packages(text) == {"socat": "1.7.4", "kubelet": "1.31.4-1.1"}


def test_packages_of_rpm_have_no_status() -> None:
    assert host.parse_packages("socat\t1.7.4-5.el9\n") == {"socat": "1.7.4-5.el9"}


@pytest.mark.parametrize(
    ("capabilities", "expected"), [("000001fffeffffff", False), ("000001ffffffffff", True)]
)
def test_capability_is_read_from_the_effective_set(capabilities: str, expected: bool) -> None:
    status = f"Name:\tpython3\nCapPrm:\t000001ffffffffff\nCapEff:\t{capabilities}\n"
    assert host.has_capability(status, host.CAP_SYS_RESOURCE) is expected


def test_swap_and_memory() -> None:
    assert host.parse_swaps("Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 1048572 0 -2\n") == [
        "/dev/sda2"
    ]
    assert host.parse_meminfo("MemTotal:       16315496 kB\nMemFree: 1 kB\n") == 15933


def test_machine_has_joined_only_with_configuration_and_certificate(tmp_path: Path) -> None:
    configuration = tmp_path / "etc/kubernetes/kubelet.conf"
    certificate = tmp_path / "var/lib/kubelet/pki/kubelet-client-current.pem"
    for path in (configuration, certificate):
        path.parent.mkdir(parents=True)
    assert not host.joined(str(tmp_path))
    configuration.write_text("clusters:\n- cluster:\n    server: https://10.30.200.1:6443\n")
    assert not host.joined(str(tmp_path))
    certificate.write_text("")
    assert not host.joined(str(tmp_path))
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    assert host.joined(str(tmp_path))


def test_command_that_is_not_there_is_told_from_one_that_fails() -> None:
    assert host.output("no-such-program-anywhere")[0] == 127
    assert host.output("false")[0] == 1


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert host.free_mib(str(tmp_path / "not" / "yet")) > 0
