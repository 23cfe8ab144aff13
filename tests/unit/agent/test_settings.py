"""The environment of calico-node: defaults, Calico's spellings, and errors that name variable and value."""

from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from tortie.agent.autodetect import Method
from tortie.agent.settings import DefaultPool, Settings, SettingsError, read_settings


def test_empty_environment_gives_calicos_defaults() -> None:
    settings = read_settings({})
    assert settings == Settings(pool=DefaultPool(cidr=IPv4Network("192.168.0.0/16")))
    assert (settings.backend, settings.mtu, settings.health_port) == ("bird", 0, 9099)
    assert settings.detection == Method("first-found")


def test_empty_values_count_as_unset() -> None:
    assert read_settings({"IP": "", "AS": " ", "CALICO_IPV4POOL_CIDR": ""}) == read_settings({})


def test_everything_can_be_set() -> None:
    settings = read_settings(
        {
            "NODENAME": "n1",
            "CALICO_NETWORKING_BACKEND": "none",
            "CLUSTER_TYPE": "k8s",
            "IP": "10.0.0.1/24",
            "IP_AUTODETECTION_METHOD": "interface=eth0,ens.*",
            "AS": "64513",
            "CALICO_IPV4POOL_CIDR": "10.5.0.0/16",
            "CALICO_IPV4POOL_BLOCK_SIZE": "27",
            "CALICO_IPV4POOL_VXLAN": "Cross-Subnet",
            "CALICO_IPV4POOL_NAT_OUTGOING": "False",
            "CALICO_IPV4POOL_NODE_SELECTOR": "has(x)",
            "CALICO_IPV4POOL_DISABLE_BGP_EXPORT": "yes",
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
            "CNI_MTU": "1440",
            "FELIX_DEFAULTENDPOINTTOHOSTACTION": "DROP",
            "FELIX_ROUTEREFRESHINTERVAL": "30",
            "FELIX_HEALTHPORT": "9199",
            "FELIX_PROMETHEUSMETRICSENABLED": "true",
            "FELIX_PROMETHEUSMETRICSHOST": "127.0.0.1",
            "FELIX_PROMETHEUSMETRICSPORT": "9191",
            "FELIX_LOGSEVERITYSCREEN": "Debug",
            "BIRD_PROGRAM": "/opt/bird",
            "CALICO_RUN_DIR": "/r",
            "CALICO_LIB_DIR": "/l",
            "CALICO_ETC_DIR": "/e",
        }
    )
    assert settings.ip == IPv4Interface("10.0.0.1/24")
    assert settings.detection == Method("interface", ("eth0", "ens.*"))
    assert settings.pool == DefaultPool(
        cidr=IPv4Network("10.5.0.0/16"),
        block_size=27,
        vxlan="CrossSubnet",
        nat_outgoing=False,
        node_selector="has(x)",
        disable_bgp_export=True,
    )
    assert (settings.node_name, settings.backend, settings.as_number) == ("n1", "none", 64513)
    assert settings.endpoint_to_host == "Drop"
    assert (settings.mtu, settings.resync, settings.log_level) == (1440, 30, "DEBUG")
    assert (settings.metrics_enabled, settings.metrics_host, settings.metrics_port) == (
        True,
        "127.0.0.1",
        9191,
    )
    assert settings.paths.cni_socket == Path("/r/cni.sock")
    assert settings.paths.nodename_file == Path("/l/nodename")
    assert settings.paths.bird_config == Path("/e/bird.cfg")


@pytest.mark.parametrize("environment", [{"CALICO_IPV4POOL_CIDR": "none"}, {"NO_DEFAULT_POOLS": "true"}])
def test_default_pool_can_be_switched_off(environment: dict[str, str]) -> None:
    assert read_settings(environment).pool is None


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("CALICO_NETWORKING_BACKEND", "gobgp", "one of bird, vxlan, none"),
        ("IP", "10.0.0", "`autodetect` or an IPv4 address"),
        ("IP_AUTODETECTION_METHOD", "interface=(", "first-found, kubernetes-internal-ip"),
        ("AS", "4294967296", "an AS number from 1 to 4294967295"),
        ("CALICO_IPV4POOL_CIDR", "10.5.0.1/16", "no bits set after the prefix"),
        ("CALICO_IPV4POOL_BLOCK_SIZE", "19", "a number from 20 to 32"),
        ("CALICO_IPV4POOL_IPIP", "on", "one of off, never, always"),
        ("CALICO_IPV4POOL_NAT_OUTGOING", "maybe", "one of true"),
        ("CNI_MTU", "-1", "a number from 0 to 65535"),
        ("FELIX_HEALTHPORT", "x", "a number from 1 to 65535"),
        ("DATASTORE_TYPE", "etcdv3", "kubernetes or unset"),
    ],
)
def test_error_names_variable_value_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({variable: value})
    text = str(error.value)
    assert f"{variable} is {value!r}" in text
    assert allowed in text


def test_all_errors_come_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({"AS": "x", "CNI_MTU": "y"})
    assert [line.split()[0] for line in str(error.value).splitlines()] == ["AS", "CNI_MTU"]


def test_two_encapsulations_exclude_each_other() -> None:
    with pytest.raises(
        SettingsError, match=r"CALICO_IPV4POOL_IPIP is Always and CALICO_IPV4POOL_VXLAN is Always"
    ):
        read_settings({"CALICO_IPV4POOL_IPIP": "Always", "CALICO_IPV4POOL_VXLAN": "Always"})


def test_block_larger_than_the_pool_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"CALICO_IPV4POOL_BLOCK_SIZE is 26.*pool 10\.5\.0\.0/28.*from 28 to 32"
    ):
        read_settings({"CALICO_IPV4POOL_CIDR": "10.5.0.0/28"})
