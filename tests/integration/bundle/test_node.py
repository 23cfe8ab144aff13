"""The modules that run on a node, through Ansible, with a real containerd."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import bundle
from lab.bundle import docker_archive, layout
from plugins.module_utils.bundle import Manifest, load

from tests.integration.bundle import containerd
from tests.integration.bundle.containerd import Containerd

pytestmark = pytest.mark.root

CHECKOUT = Path(__file__).parents[3]
NAME = "localhost/tortie-test:1"


@pytest.fixture(scope="module")
def containerd_daemon() -> Iterator[Containerd]:
    with containerd.running() as started:
        yield started


@pytest.fixture
def daemon(containerd_daemon: Containerd) -> Containerd:
    """The module's containerd, with no image in it."""
    names = containerd_daemon.ctr("images", "ls", "-q").split()
    if names:
        containerd_daemon.ctr("images", "rm", "--sync", *names)
    return containerd_daemon


def run(daemon: Containerd, module: str, *flags: str, **parameters: object) -> dict[str, Any]:
    """The module's answer on this machine; `failed` is among its keys when it failed."""
    interpreter = Path(sys.executable).with_name("ansible")
    command = [
        str(interpreter),
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-m",
        f"tortie.cluster.{module}",
    ]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-a", json.dumps(parameters), *flags]
    environment = {
        **daemon.environment(),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }
    answer = subprocess.run(
        command, capture_output=True, text=True, cwd=CHECKOUT, env=environment, check=False
    )
    start = answer.stdout.index("=> {") + 3
    result: dict[str, Any] = json.JSONDecoder().raw_decode(answer.stdout[start:])[0]
    result["failed"] = answer.returncode != 0
    result["printed"] = answer.stdout
    return result


def image(directory: Path, content: str) -> tuple[Path, str]:
    """An archive of an image NAME with that content; its ID."""
    root = directory / content
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_text(content)
    archive = directory / f"{content}.tar"
    config = docker_archive.ImageConfig(layout.machine_architecture(), "/bin")
    return archive, docker_archive.write(archive, NAME, root, config)


def test_image_is_loaded_once(daemon: Containerd, tmp_path: Path) -> None:
    archive, image_id = image(tmp_path, "one")
    parameters = {"name": NAME, "archive": str(archive), "image_id": image_id, "socket": str(daemon.socket)}
    first = run(daemon, "container_image", **parameters)
    assert (first["changed"], first["missing"], first["image_id"]) == (True, True, image_id)
    assert NAME in daemon.ctr("images", "ls", "-q").split()
    again = run(daemon, "container_image", **parameters)
    assert (again["changed"], again["missing"], again["image_id"]) == (False, False, image_id)


def test_archive_need_not_be_there_when_the_image_is(daemon: Containerd, tmp_path: Path) -> None:
    archive, image_id = image(tmp_path, "one")
    daemon.ctr("images", "import", str(archive))
    answer = run(daemon, "container_image", name=NAME, image_id=image_id, socket=str(daemon.socket))
    assert (answer["failed"], answer["changed"]) == (False, False)


def test_rebuilt_image_of_the_same_name_is_loaded(daemon: Containerd, tmp_path: Path) -> None:
    old, _ = image(tmp_path, "one")
    new, new_id = image(tmp_path, "two")
    daemon.ctr("images", "import", str(old))
    answer = run(daemon, "container_image", name=NAME, archive=str(new), socket=str(daemon.socket))
    assert (answer["changed"], answer["image_id"]) == (True, new_id)


def test_check_mode_says_what_would_be_and_loads_nothing(daemon: Containerd, tmp_path: Path) -> None:
    _, image_id = image(tmp_path, "one")
    parameters = {"name": NAME, "image_id": image_id, "socket": str(daemon.socket)}
    answer = run(daemon, "container_image", "--check", "--diff", **parameters)
    assert answer["changed"]
    assert f"-{NAME} absent\n" in answer["printed"]
    assert f"+{NAME} {image_id}\n" in answer["printed"]
    assert daemon.ctr("images", "ls", "-q") == ""


def test_archive_of_another_image_is_refused(daemon: Containerd, tmp_path: Path) -> None:
    archive, _ = image(tmp_path, "one")
    wanted = f"sha256:{'0' * 64}"
    parameters = {"name": NAME, "archive": str(archive), "image_id": wanted, "socket": str(daemon.socket)}
    answer = run(daemon, "container_image", **parameters)
    assert answer["failed"]
    assert f"{wanted} is wanted" in answer["msg"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"name": "tortie"}, "write the full reference with registry and tag"),
        ({"name": NAME, "image_id": "1"}, "must be sha256: and 64 hexadecimal digits"),
        ({"name": NAME}, "is not on this node, and archive is None"),
        (
            {"name": NAME, "socket": "/nonexistent/sock"},
            "There is no containerd at /nonexistent/sock",
        ),
    ],
)
def test_parameters_that_cannot_work_are_explained(
    daemon: Containerd, parameters: dict[str, str], message: str
) -> None:
    answer = run(daemon, "container_image", **{"socket": str(daemon.socket), **parameters})
    assert answer["failed"]
    assert message in answer["msg"]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load(bundle.find())


def parameters_of(manifest: Manifest, daemon: Containerd, target: Path) -> dict[str, Any]:
    """bundle_install's parameters for everything small: crictl, the plugins, the pause image."""
    chosen = [
        entry
        for entry in manifest.as_dict()["artifacts"]
        if entry["name"] in ("crictl", "pause") or entry["kind"] == "cni-plugin"
    ]
    return {
        "artifacts": chosen,
        "bin_dir": str(target / "bin"),
        "cni_dir": str(target / "cni"),
        "socket": str(daemon.socket),
    }


def test_bundle_is_queried_installed_and_left_alone(
    daemon: Containerd, manifest: Manifest, tmp_path: Path
) -> None:
    parameters = parameters_of(manifest, daemon, tmp_path)
    paths = [entry["path"] for entry in parameters["artifacts"]]
    looked = run(daemon, "bundle_install", state="query", **parameters)
    assert (looked["changed"], looked["missing"]) == (False, paths)
    assert looked["missing_dirs"] == ["bin", "bin/cni", "images"]

    checked = run(daemon, "bundle_install", "--check", bundle_dir=str(tmp_path / "nothing"), **parameters)
    assert (checked["failed"], checked["changed"]) == (False, True)
    assert not (tmp_path / "bin").exists()

    done = run(daemon, "bundle_install", bundle_dir=str(bundle.find()), **parameters)
    assert (done["failed"], done["changed"], done["missing"]) == (False, True, paths)
    assert os.access(tmp_path / "cni/portmap", os.X_OK)

    (tmp_path / "cni/portmap").write_bytes(b"damaged")
    again = run(daemon, "bundle_install", state="query", **parameters)
    assert again["missing"] == ["bin/cni/portmap"]
    repaired = run(daemon, "bundle_install", bundle_dir=str(bundle.find()), **parameters)
    assert repaired["missing"] == ["bin/cni/portmap"]
    last = run(daemon, "bundle_install", bundle_dir=str(bundle.find()), **parameters)
    assert (last["changed"], last["missing"]) == (False, [])


def test_damaged_copy_installs_nothing(daemon: Containerd, manifest: Manifest, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "bin").mkdir(parents=True)
    (copy / "bin/crictl").write_bytes(b"damaged on the way")
    parameters = parameters_of(manifest, daemon, tmp_path)
    answer = run(daemon, "bundle_install", bundle_dir=str(copy), kinds=["binary"], **parameters)
    assert answer["failed"]
    assert "bin/crictl" in answer["msg"]
    assert not (tmp_path / "bin/crictl").exists()


def test_crictl_speaks_to_containerd(daemon: Containerd) -> None:
    directory = bundle.find()
    endpoint = f"unix://{daemon.socket}"

    def crictl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(directory / "bin/crictl"), "-r", endpoint, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    reference = "k8s.gcr.io/pause:3.2"
    assert crictl("inspecti", reference).returncode == 1
    daemon.ctr("images", "import", str(directory / "images/pause_3.2.tar"))
    assert json.loads(crictl("inspecti", reference).stdout)["status"]["repo_tags"] == [reference]
    assert crictl("pull", reference).returncode == 0
    assert reference in crictl("images").stdout
    assert json.loads(crictl("info").stdout)["status"]["conditions"]
    assert crictl("pods", "-q").stdout == ""
    assert "not found" in crictl("rmp", "nothing").stderr
    unknown = crictl("attach")
    assert unknown.returncode == 2
    assert "there is no subcommand" in unknown.stderr
