"""Cases of Calico's CNI tests that need no node: the installer's files, and fields of the configuration."""

import json
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cni.requests import parse, refusal
from tortie.cni import installer
from tortie.cni.installer import InstallError, Settings, write_atomically


@pytest.fixture
def chosen(tmp_path: Path) -> Settings:
    """Settings whose every path is in a temporary directory."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in installer.PLUGINS:
        (plugins / name).write_text(name)
    return Settings(
        bin_dir=tmp_path / "bin", net_dir=tmp_path / "net.d", plugins_dir=plugins, shim=installer.FAST_SHIM
    )


# --- the installer ---


def test_a_directory_that_cannot_be_written_fails_the_installation_by_name(chosen: Settings) -> None:
    chosen.bin_dir.write_text("")  # no mode stops root; a file in the directory's place does
    with pytest.raises(InstallError, match=f"cannot write {chosen.bin_dir}/calico"):
        installer.install_binaries(chosen)


def test_the_configuration_is_written_under_the_chosen_name_and_from_the_file_first(tmp_path: Path) -> None:
    alternate = tmp_path / "alternate"
    alternate.write_text('{"name": "alternate", "type": "calico"}')
    environment = {
        "CNI_NET_DIR_MOUNT": str(tmp_path / "net.d"),
        "CNI_CONF_NAME": "20-calico.conflist",
        "CNI_NETWORK_CONFIG": '{"name": "not this"}',
    }
    from_text = installer.settings(environment)
    assert json.loads(installer.render_config(from_text)) == {"name": "not this"}
    found = installer.settings(environment | {"CNI_NETWORK_CONFIG_FILE": str(alternate)})
    write_atomically(found.net_dir / found.config_name, installer.render_config(found), 0o600)
    written = tmp_path / "net.d" / "20-calico.conflist"
    assert json.loads(written.read_text()) == {"name": "alternate", "type": "calico"}


@pytest.mark.parametrize("text", ["{}", '{"missing quote}'])
def test_a_configuration_of_ones_own_is_taken_when_it_is_json(chosen: Settings, text: str) -> None:
    mine = replace(chosen, config_template=text)
    if text == "{}":
        assert installer.render_config(mine) == b"{}\n"
    else:
        with pytest.raises(InstallError, match="CNI_NETWORK_CONFIG is not JSON"):
            installer.render_config(mine)


def test_a_plugin_that_is_being_executed_is_replaced(chosen: Settings) -> None:
    image, portmap = chosen.plugins_dir / "portmap", chosen.bin_dir / "portmap"
    shutil.copy("/bin/sleep", image)  # a file that is executed cannot be written to (ETXTBSY)
    installer.install_binaries(chosen)
    with subprocess.Popen([portmap, "0.3"]) as running:
        image.write_text("another")
        assert installer.install_binaries(chosen) == ["portmap"]
        assert portmap.read_text() == "another"
        assert running.wait(30) == 0


BIG = bytes(range(256)) * 1000  # several times what a copy reads at once


@pytest.mark.parametrize(
    ("new", "old", "mode", "written"),
    [
        (b"the same", b"the same", 0o755, False),
        (b"some words", b"some other words", 0o755, True),
        (b"foobar", b"barfoo", 0o755, True),
        (b"the same", b"the same", 0o777, True),
        (BIG, BIG[:10], 0o755, True),
        (BIG[:10], BIG, 0o755, True),
        (BIG[:128002], BIG[:128003], 0o755, True),
        (BIG, BIG, 0o755, False),
    ],
    ids=["equal", "unequal", "same-size", "mode", "big-small", "small-big", "last-byte", "big-equal"],
)
def test_a_file_is_written_again_unless_content_and_mode_are_right(
    tmp_path: Path, new: bytes, old: bytes, mode: int, written: bool
) -> None:
    target = tmp_path / "calico"
    target.write_bytes(old)
    target.chmod(mode)
    assert write_atomically(target, new, 0o755) == written
    assert target.read_bytes() == new
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


# --- fields of the configuration ---


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 0),
        ({"device_type": ""}, 0),
        ({"device_type": "veth"}, 0),
        ({"device_type": "netkit"}, 2),
        ({"device_type": "bogus"}, 7),
        ({"dataplane_options": {"type": "invalid-dataplane-type"}}, 7),
        ({"readiness_gates": "http://localhost:9099/invalid"}, 7),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_honoured_is_refused(fields: dict[str, Any], code: int) -> None:
    assert refusal(lambda: parse(**fields)) == code


# --- whose a handle, or an interface, is ---


def test_handle_and_interface_are_named_by_network_and_container() -> None:
    request = parse()
    assert request.handle == "k8s-pod-network.0123456789abcdef"
    assert parse(name="another").handle == "another.0123456789abcdef"
    assert parse({"CNI_CONTAINERID": "next"}).host_name == request.host_name
    assert parse({"CNI_ARGS": ""}).host_name == "cali0123456789a"
