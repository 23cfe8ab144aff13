"""Putting programs in place on a node."""

from pathlib import Path

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils import bundle, bundle_files, container_images
from ansible_collections.tortie.cluster.plugins.module_utils.bundle import Artifact, BundleError

from tests.unit.bundle.samples import write_bundle

DESTINATIONS = bundle_files.Destinations("/usr/local/bin", "/opt/cni/bin", "/usr/bin/kubelet")


@pytest.fixture
def artifacts(tmp_path: Path) -> list[Artifact]:
    write_bundle(tmp_path)
    return list(bundle.load(tmp_path).artifacts)


def test_destinations_follow_kind_and_name(artifacts: list[Artifact]) -> None:
    paths = [str(DESTINATIONS.of(artifact)) for artifact in artifacts if artifact.kind != bundle.IMAGE]
    assert paths == ["/usr/local/bin/kubeadm", "/usr/bin/kubelet", "/opt/cni/bin/loopback"]


def test_installed_program_has_the_wanted_state(tmp_path: Path, artifacts: list[Artifact]) -> None:
    destination = tmp_path / "new/bin/kubeadm"
    assert bundle_files.state_of(destination, artifacts[0]) == "absent"
    bundle_files.install(str(tmp_path), artifacts[0], destination)
    assert bundle_files.state_of(destination, artifacts[0]) == bundle_files.wanted_state(artifacts[0])
    assert [path.name for path in destination.parent.iterdir()] == ["kubeadm"]


def test_wrong_content_installs_nothing_and_keeps_the_old_program(
    tmp_path: Path, artifacts: list[Artifact]
) -> None:
    destination = tmp_path / "kubeadm"
    destination.write_bytes(b"old")
    (tmp_path / "bin/kubeadm").write_bytes(b"#!kubeadn")
    with pytest.raises(BundleError, match="nothing was installed from it"):
        bundle_files.install(str(tmp_path), artifacts[0], destination)
    assert destination.read_bytes() == b"old"
    assert not list(tmp_path.glob(".kubeadm*"))


def test_running_program_keeps_its_file(tmp_path: Path, artifacts: list[Artifact]) -> None:
    destination = tmp_path / "kubeadm"
    destination.write_bytes(b"old")
    with destination.open("rb") as running:
        bundle_files.install(str(tmp_path), artifacts[0], destination)
        assert running.read() == b"old"
    assert destination.read_bytes() == b"#!kubeadm"


def test_artifact_that_was_not_copied_is_named(tmp_path: Path, artifacts: list[Artifact]) -> None:
    (tmp_path / "bin/kubeadm").unlink()
    with pytest.raises(BundleError, match="bin/kubeadm is missing"):
        bundle_files.install(str(tmp_path), artifacts[0], tmp_path / "kubeadm")


def test_other_mode_is_another_state(tmp_path: Path, artifacts: list[Artifact]) -> None:
    destination = tmp_path / "kubeadm"
    bundle_files.install(str(tmp_path), artifacts[0], destination)
    destination.chmod(0o644)
    assert bundle_files.state_of(destination, artifacts[0]) != bundle_files.wanted_state(artifacts[0])


def test_directory_in_the_way_is_an_error(tmp_path: Path, artifacts: list[Artifact]) -> None:
    (tmp_path / "kubeadm").mkdir()
    with pytest.raises(BundleError, match="is in the way of kubeadm"):
        bundle_files.state_of(tmp_path / "kubeadm", artifacts[0])


def test_names_choose_programs_only(artifacts: list[Artifact]) -> None:
    chosen = bundle_files.select(artifacts, bundle.KINDS, ["kubelet"])
    assert [artifact.name for artifact in chosen] == ["kubelet", "loopback", "pause"]


def test_kinds_choose(artifacts: list[Artifact]) -> None:
    assert [artifact.name for artifact in bundle_files.select(artifacts, ["image"], [])] == ["pause"]


def test_program_that_the_bundle_lacks_is_named(artifacts: list[Artifact]) -> None:
    with pytest.raises(
        BundleError, match="names has kubectl, and the bundle's programs are kubeadm, kubelet"
    ):
        bundle_files.select(artifacts, bundle.KINDS, ["kubectl"])


def test_listing_of_images_is_parsed() -> None:
    digest = f"sha256:{'1' * 64}"
    listing = (
        "REF                  TYPE                                                 DIGEST  SIZE  PLATFORMS"
        f" LABELS\nk8s.gcr.io/pause:3.2 application/vnd.docker.distribution.manifest.v2+json {digest} 680.8"
        " KiB linux/amd64 -\nbroken line\n"
    )
    assert container_images.parse_listing(listing) == {"k8s.gcr.io/pause:3.2": digest}


def test_diff_lists_states_in_order() -> None:
    diff = container_images.diff_of({"b": "absent", "a": "absent"}, {"b": "1", "a": "2"})
    assert diff == {"before": "a absent\nb absent\n", "after": "a 2\nb 1\n"}
