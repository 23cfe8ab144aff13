"""What the Debian provider made: the programs run, and the images hold what they must."""

import subprocess
import tarfile
from pathlib import Path

import pytest
from lab import bundle, debs
from lab.bundle import debian, images, layout
from lab.bundle.debian_source import PrivateApt
from plugins.module_utils.bundle import load, verify

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def made() -> Path:
    """The Debian provider's bundle; beside the cached one where that was downloaded."""
    found = bundle.find()
    if load(found).provider == debian.PROVIDER:
        return found
    return debian.build(found.with_name(f"{found.name}-debian"), layout.machine_architecture())


def test_bundle_is_whole(made: Path) -> None:
    assert verify(made, layout.machine_architecture(), "1.20.2") == []


def test_images_are_those_that_kubeadm_lists_but_for_coredns(made: Path) -> None:
    command = [str(made / "bin/kubeadm"), "config", "images", "list", "--kubernetes-version", "v1.20.2"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert sorted([*load(made).images(), "k8s.gcr.io/coredns:1.7.0"]) == sorted(listed)


@pytest.mark.parametrize("program", ["kubeadm", "kubelet", "kubectl"])
def test_programs_know_their_version(made: Path, program: str) -> None:
    flag = (
        ["--version"]
        if program == "kubelet"
        else ["version", "--client"]
        if program == "kubectl"
        else ["version"]
    )
    answer = subprocess.run([str(made / "bin" / program), *flag], capture_output=True, text=True, check=True)
    assert "v1.20.2" in answer.stdout


@pytest.mark.parametrize("program", ["kube-apiserver", "kube-controller-manager", "kube-scheduler"])
def test_image_programs_run(made: Path, tmp_path: Path, program: str) -> None:
    archive = made / "images" / f"{program}_v1.20.2.tar"
    path = images.extract_file(archive, f"/usr/local/bin/{program}", tmp_path / program)
    answer = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "Kubernetes v1.20.2"


def _unpack(archive: Path, directory: Path) -> Path:
    [image] = images.read(archive)
    with tarfile.open(archive) as outer:
        for name in image.layers:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                layer.extractall(directory)
    return directory


def test_etcd_runs_with_the_libraries_of_its_image(made: Path, tmp_path: Path) -> None:
    root = _unpack(made / "images/etcd_3.4.13-0.tar", tmp_path / "root")
    command = ["chroot", str(root), "/usr/local/bin/etcd", "--version"]
    assert "etcd Version: 3.4." in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _in_image(root: Path, script: str) -> str:
    """Output of a script in the image's files, in a network namespace that ends with it."""
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev/null").touch()
    command = ["unshare", "--net", "chroot", str(root), "/bin/sh", "-euc", script]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_iptables_in_the_kube_proxy_image_defaults_to_nftables(made: Path, tmp_path: Path) -> None:
    root = _unpack(made / "images/kube-proxy_v1.20.2.tar", tmp_path / "root")
    script = "iptables -t nat -N KUBE-TEST; iptables-save; ip6tables-restore --version"
    output = _in_image(root, script)
    assert ":KUBE-TEST" in output
    assert output.count("(nf_tables)") == 2
    assert str((root / "usr/sbin/iptables-save").readlink()) == "iptables-nft-save"
    assert str((root / "usr/sbin/ip6tables").readlink()) == "ip6tables-nft"


def test_iptables_in_the_kube_proxy_image_follows_the_kubelet_to_nftables(made: Path, tmp_path: Path) -> None:
    root = _unpack(made / "images/kube-proxy_v1.20.2.tar", tmp_path / "root")
    output = _in_image(root, "iptables-nft -t mangle -N KUBE-KUBELET-CANARY; iptables-save -t mangle")
    assert ":KUBE-KUBELET-CANARY" in output
    assert str((root / "usr/sbin/iptables").readlink()) == "iptables-nft"


def test_kube_proxy_image_has_what_kube_proxy_calls(made: Path, tmp_path: Path) -> None:
    root = _unpack(made / "images/kube-proxy_v1.20.2.tar", tmp_path / "root")
    output = _in_image(
        root, "kube-proxy --version; conntrack --version; ipset --version; grep -c tcp /etc/protocols"
    )
    assert "Kubernetes v1.20.2" in output
    assert "conntrack v" in output
    assert "ipset v" in output


def test_source_package_is_found_without_touching_the_machine(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("/etc/apt").rglob("*")}
    apt = PrivateApt(tmp_path)
    apt.update()
    assert "1.20.2" in apt.find("kubernetes", "1.20.2").version
    assert {path: path.stat().st_mtime_ns for path in Path("/etc/apt").rglob("*")} == before


def test_package_is_extracted_and_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORTIE_CACHE", str(tmp_path))
    directory = debs.extract("netbase")
    assert (directory / "etc/protocols").is_file()
    assert directory.parent == tmp_path / "debs"
    assert not list(directory.glob("*.deb"))
    assert debs.extract("netbase") == directory
