"""Settings put into the manifests; the role's defaults are deploy/."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tortie.cluster.plugins.module_utils import manifests

ROOT = Path(__file__).resolve().parents[3]
DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "roles/tortie/defaults/main.yml").read_text())
SPECIFICATION: dict[str, Any] = yaml.safe_load((ROOT / "roles/tortie/meta/argument_specs.yml").read_text())
SETTINGS: dict[str, Any] = {
    "as_number": DEFAULTS["tortie_as_number"],
    "block_size": DEFAULTS["tortie_ipv4pool_block_size"],
    "encapsulation": DEFAULTS["tortie_encapsulation"],
    "encapsulation_mode": DEFAULTS["tortie_encapsulation_mode"],
    "image": DEFAULTS["tortie_image"],
    "image_id": "",
    "ip_autodetection_method": DEFAULTS["tortie_ip_autodetection_method"],
    "mtu": DEFAULTS["tortie_mtu"],
    "nat_outgoing": DEFAULTS["tortie_nat_outgoing"],
    "pool_cidr": DEFAULTS["tortie_ipv4pool_cidr"],
}


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    """Everything that `kubectl apply -f deploy/` applies."""
    files = sorted((ROOT / "deploy").glob("*.yaml"))
    return [item for file in files for item in yaml.safe_load_all(file.read_text()) if item]


def daemonset(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The DaemonSet's pod template."""
    (found,) = [item for item in documents if item["kind"] == "DaemonSet"]
    template: dict[str, Any] = found["spec"]["template"]
    return template


def environment(documents: list[dict[str, Any]]) -> dict[str, str]:
    """The calico-node container's literal environment."""
    (container,) = daemonset(documents)["spec"]["containers"]
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


def test_role_defaults_render_to_exactly_the_manifests(documents: list[dict[str, Any]]) -> None:
    assert manifests.render(documents, SETTINGS) == documents


def test_role_defaults_and_argument_specification_agree() -> None:
    options = SPECIFICATION["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == DEFAULTS


def test_role_settings_have_the_expected_keys() -> None:
    variables = yaml.safe_load((ROOT / "roles/tortie/vars/main.yml").read_text())
    assert sorted(variables["__tortie_settings"]) == sorted(manifests.SETTINGS)


def test_documents_are_not_changed_in_place(documents: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(documents)
    manifests.render(documents, {**SETTINGS, "image": "other", "mtu": 1440})
    assert documents == before


def test_image_reaches_every_container(documents: list[dict[str, Any]]) -> None:
    pod = daemonset(manifests.render(documents, {**SETTINGS, "image": "registry.example/tortie:2"}))["spec"]
    images = {item["image"] for item in [*pod["initContainers"], *pod["containers"]]}
    assert images == {"registry.example/tortie:2"}


def controllers(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The Deployment's pod template."""
    (found,) = [item for item in documents if item["kind"] == "Deployment"]
    template: dict[str, Any] = found["spec"]["template"]
    return template


def test_controllers_run_the_same_image_and_roll_out_with_it(documents: list[dict[str, Any]]) -> None:
    settings = {**SETTINGS, "image": "registry.example/tortie:2", "image_id": "sha256:" + "1" * 64}
    rendered = manifests.render(documents, settings)
    node, others = daemonset(rendered), controllers(rendered)
    assert others["spec"]["containers"][0]["image"] == "registry.example/tortie:2"
    assert others["metadata"]["annotations"] == node["metadata"]["annotations"]
    assert others["metadata"]["labels"] == {"k8s-app": "calico-kube-controllers"}


def test_controllers_may_run_on_a_control_plane_and_need_no_privilege(
    documents: list[dict[str, Any]],
) -> None:
    pod = controllers(documents)["spec"]
    for taint in ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"):
        assert {"key": taint, "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    (container,) = pod["containers"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert "volumes" not in pod


def test_another_image_id_changes_the_pod_template(documents: list[dict[str, Any]]) -> None:
    first = daemonset(manifests.render(documents, {**SETTINGS, "image_id": "sha256:" + "1" * 64}))
    second = daemonset(manifests.render(documents, {**SETTINGS, "image_id": "sha256:" + "2" * 64}))
    assert first != second
    assert first["metadata"]["labels"] == second["metadata"]["labels"] == {"k8s-app": "calico-node"}


@pytest.mark.parametrize(
    ("encapsulation", "mode", "ipip", "vxlan"),
    [
        ("ipip", "always", "Always", "Never"),
        ("ipip", "cross-subnet", "CrossSubnet", "Never"),
        ("vxlan", "always", "Never", "Always"),
        ("vxlan", "cross-subnet", "Never", "CrossSubnet"),
        ("none", "always", "Never", "Never"),
    ],
)
def test_encapsulation_becomes_the_pool_modes(
    documents: list[dict[str, Any]], encapsulation: str, mode: str, ipip: str, vxlan: str
) -> None:
    settings = {**SETTINGS, "encapsulation": encapsulation, "encapsulation_mode": mode}
    variables = environment(manifests.render(documents, settings))
    assert variables["CALICO_IPV4POOL_IPIP"] == ipip
    assert variables["CALICO_IPV4POOL_VXLAN"] == vxlan
    spec = manifests.pool_patch(settings)["definition"]["spec"]
    assert (spec["ipipMode"], spec["vxlanMode"]) == (ipip, vxlan)


def test_settings_reach_the_environment_as_text(documents: list[dict[str, Any]]) -> None:
    settings = {
        **SETTINGS,
        "as_number": "64999",
        "block_size": 24,
        "ip_autodetection_method": "interface=eth1",
        "mtu": 1440,
        "nat_outgoing": False,
        "pool_cidr": "10.5.0.0/16",
    }
    changed = {
        name: value
        for name, value in environment(manifests.render(documents, settings)).items()
        if value != environment(documents).get(name)
    }
    assert changed == {
        "AS": "64999",
        "CALICO_IPV4POOL_BLOCK_SIZE": "24",
        "CALICO_IPV4POOL_CIDR": "10.5.0.0/16",
        "CALICO_IPV4POOL_NAT_OUTGOING": "false",
        "CNI_MTU": "1440",
        "IP_AUTODETECTION_METHOD": "interface=eth1",
    }


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("encapsulation", "gre", "tortie_encapsulation is 'gre'; it must be ipip, vxlan or none"),
        ("encapsulation_mode", "sometimes", "must be always or cross-subnet"),
        ("mtu", "big", "tortie_mtu is 'big'"),
        ("mtu", 67, "from 68 to 65535"),
        ("block_size", 19, "tortie_ipv4pool_block_size is 19"),
        ("as_number", 0, "tortie_as_number is 0"),
        ("pool_cidr", "10.5.0.1/16", "tortie_ipv4pool_cidr is '10.5.0.1/16'"),
        ("pool_cidr", "10.5.0.0/28", "smaller than one block of /26"),
        ("ip_autodetection_method", "interface=", "tortie_ip_autodetection_method is 'interface='"),
        ("ip_autodetection_method", "eth0", "tortie_ip_autodetection_method is 'eth0'"),
        ("image", " ", "tortie_image is empty"),
    ],
)
def test_bad_setting_is_named_with_its_value(
    documents: list[dict[str, Any]], setting: str, value: Any, words: str
) -> None:
    with pytest.raises(manifests.SettingsError, match=words.replace("(", r"\(")):
        manifests.render(documents, {**SETTINGS, setting: value})


def test_all_bad_settings_are_reported_at_once(documents: list[dict[str, Any]]) -> None:
    with pytest.raises(manifests.SettingsError, match=r"tortie_encapsulation .* tortie_mtu"):
        manifests.render(documents, {**SETTINGS, "encapsulation": "gre", "mtu": "big"})


def test_unknown_setting_is_refused(documents: list[dict[str, Any]]) -> None:
    with pytest.raises(manifests.SettingsError, match="unknown \\['colour'\\]"):
        manifests.render(documents, {**SETTINGS, "colour": "blue"})


def test_manifest_without_the_variable_is_refused(documents: list[dict[str, Any]]) -> None:
    (container,) = daemonset(documents)["spec"]["containers"]
    container["env"] = [item for item in container["env"] if item["name"] != "CNI_MTU"]
    with pytest.raises(manifests.SettingsError, match="no environment variable CNI_MTU"):
        manifests.render(documents, SETTINGS)


def test_manifests_without_the_daemonset_are_refused(documents: list[dict[str, Any]]) -> None:
    rest = [item for item in documents if item["kind"] != "DaemonSet"]
    with pytest.raises(manifests.SettingsError, match="0 DaemonSets named calico-node"):
        manifests.render(rest, SETTINGS)


def test_pods_of_the_daemonset_reach_every_linux_node(documents: list[dict[str, Any]]) -> None:
    pod = daemonset(documents)["spec"]
    assert {"effect": "NoSchedule", "operator": "Exists"} in pod["tolerations"]
    assert {"effect": "NoExecute", "operator": "Exists"} in pod["tolerations"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert pod["hostNetwork"] is True


def test_every_mount_has_its_volume(documents: list[dict[str, Any]]) -> None:
    pod = daemonset(documents)["spec"]
    volumes = {item["name"] for item in pod["volumes"]}
    mounts = {
        mount["name"]
        for container in [*pod["initContainers"], *pod["containers"]]
        for mount in container["volumeMounts"]
    }
    assert mounts == volumes
