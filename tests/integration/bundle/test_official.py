"""The provider that downloads: real kubeadm, real podman, sites on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import LabError, bundle
from lab.bundle import docker_archive, images, layout, official
from plugins.module_utils.bundle import IMAGE, load, verify

from tests.integration.bundle.registry import Site, archive_of, serving

pytestmark = pytest.mark.root

VERSION = "1.20.2"
# What kubeadm of this version lists, without the registry.
IMAGES = [f"kube-{name}:v{VERSION}" for name in ("apiserver", "controller-manager", "scheduler", "proxy")]
IMAGES += ["pause:3.2", "etcd:3.4.13-0", "coredns:1.7.0"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Kubernetes 1.20.2 as it would be published, the programs being those of our own bundle."""
    programs = bundle.find() / "bin"
    architecture = layout.machine_architecture()
    with serving() as served:
        for name in ("kubeadm", "kubelet", "kubectl"):
            # Only kubeadm is run; the others are large and any content will do.
            content = (programs / name).read_bytes() if name == "kubeadm" else name.encode()
            served.add(f"/release/v{VERSION}/bin/linux/{architecture}/{name}", content)
        served.add(
            f"/crictl/v1.20.0/crictl-v1.20.0-linux-{architecture}.tar.gz", archive_of({"crictl": b"crictl"})
        )
        plugins = archive_of({"portmap": b"portmap", "loopback": b"loopback"})
        served.add(f"/cni/v1.8.0/cni-plugins-linux-{architecture}-v1.8.0.tgz", plugins)
        for reference in IMAGES:
            name, tag = reference.split(":")
            _publish(served, name, tag, tmp_path, architecture)
        yield served


def _publish(site: Site, name: str, tag: str, directory: Path, architecture: str) -> None:
    root = directory / "roots" / name
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin" / name).write_text(f"#!{name}")
    archive = directory / "roots" / f"{name}.tar"
    docker_archive.write(
        archive, f"origin.example/{name}:{tag}", root, docker_archive.ImageConfig(architecture, "/bin")
    )
    site.add_image(name, tag, archive)


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without pins: the test's programs are not the published ones."""
    pins = tmp_path / "pins.json"
    pins.write_text('{"kubernetes": {}}')
    monkeypatch.setattr(official, "_PINS", pins)


def _sources(site: Site) -> official.Sources:
    base = f"http://{site.address}"
    return official.Sources(
        f"{base}/release", f"{base}/crictl", f"{base}/cni", site.address, plain_registry=True
    )


@pytest.mark.usefixtures("unpinned")
def test_downloaded_bundle_is_whole_and_has_every_image_that_kubeadm_lists(
    site: Site, tmp_path: Path
) -> None:
    destination = official.build(tmp_path / "bundle", VERSION, layout.machine_architecture(), _sources(site))
    assert verify(destination, layout.machine_architecture(), VERSION) == []
    manifest = load(destination)
    assert sorted(manifest.images()) == sorted(f"k8s.gcr.io/{reference}" for reference in IMAGES)
    assert [path.name for path in sorted((destination / "bin/cni").iterdir())] == ["loopback", "portmap"]
    assert sorted(path.name for path in destination.iterdir()) == ["bin", "images", "manifest.json"]
    for artifact in manifest.of_kind(IMAGE):
        [image] = images.read(destination / artifact.path)
        assert (image.references, image.image_id) == ((artifact.image,), artifact.image_id)
    etcd = images.extract_file(
        destination / "images/etcd_3.4.13-0.tar", "/usr/local/bin/etcd", tmp_path / "etcd"
    )
    assert etcd.read_text() == "#!etcd"


@pytest.mark.usefixtures("unpinned")
def test_second_call_downloads_nothing(site: Site, tmp_path: Path) -> None:
    for _ in range(2):
        official.build(tmp_path / "bundle", VERSION, layout.machine_architecture(), _sources(site))
        first, site.requests = site.requests, []
    assert first == []


@pytest.mark.usefixtures("unpinned")
def test_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    path = f"/release/v{VERSION}/bin/linux/{layout.machine_architecture()}/kubelet"
    site.files[f"{path}.sha256"] = ("text/plain", b"0" * 64)
    with pytest.raises(LabError, match=r"kubelet has SHA-256 [0-9a-f]{64}, and 0{64} was expected"):
        official.build(tmp_path / "out/bundle", VERSION, layout.machine_architecture(), _sources(site))
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [".bundle.lock"]


def test_content_that_is_not_the_pinned_one_is_refused(site: Site, tmp_path: Path) -> None:
    """The site's own checksum agrees with its file, and the pin does not: cni-plugins 1.8.0 is pinned."""
    with pytest.raises(LabError, match=r"cni-plugins-linux-.* has SHA-256"):
        official.build(tmp_path / "out/bundle", VERSION, layout.machine_architecture(), _sources(site))
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [".bundle.lock"]


@pytest.mark.usefixtures("unpinned")
def test_missing_image_leaves_nothing(site: Site, tmp_path: Path) -> None:
    del site.files["/v2/coredns/manifests/1.7.0"]
    with pytest.raises(LabError, match=r"podman could not pull .*/coredns:1\.7\.0"):
        official.build(tmp_path / "out/bundle", VERSION, layout.machine_architecture(), _sources(site))
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [".bundle.lock"]
