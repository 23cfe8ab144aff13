"""The bundle's manifest and what verification finds."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugins.module_utils import bundle
from plugins.module_utils.bundle import BundleError

from tests.unit.bundle.samples import write_bundle, write_manifest


def test_complete_bundle_has_no_problems(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    assert bundle.verify(tmp_path, "x86_64", "v1.20.2") == []


def test_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    manifest = bundle.load(tmp_path)
    assert bundle.parse(manifest.as_dict(), "again") == manifest
    assert manifest.images() == ["k8s.gcr.io/pause:3.2"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "bin/kubelet").unlink()
    assert bundle.verify(tmp_path) == [f"bin/kubelet is missing from the bundle {tmp_path}."]


def test_file_of_another_size_is_named(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "bin/kubelet").write_bytes(b"longer than before")
    [problem] = bundle.verify(tmp_path)
    assert problem == "bin/kubelet has 18 bytes, and the manifest says 9."


def test_file_of_same_size_and_other_content_is_named(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "bin/kubelet").write_bytes(b"#!kubelat")
    [problem] = bundle.verify(tmp_path)
    assert problem.startswith("bin/kubelet has SHA-256 ")


def test_every_problem_is_listed(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "bin/kubelet").unlink()
    (tmp_path / "bin/kubeadm").write_bytes(b"x")
    assert len(bundle.verify(tmp_path, "arm64", "1.21.0")) == 4


def test_checking_some_artifacts_leaves_the_others_unread(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    (tmp_path / "bin/kubelet").unlink()
    assert bundle.verify(tmp_path, artifacts=()) == []


def test_wrong_version_names_both_and_the_variable(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    [problem] = bundle.verify(tmp_path, version="1.21.0")
    assert "1.20.2" in problem
    assert "kubernetes_version is 1.21.0" in problem


def test_directory_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    [problem] = bundle.verify(tmp_path)
    assert "it has no manifest.json" in problem


def test_unreadable_json_is_reported(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        bundle.load(tmp_path)


def test_symbolic_link_out_of_the_bundle_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "bundle"
    inside.mkdir()
    write_bundle(inside)
    outside = tmp_path / "outside"
    outside.write_bytes(b"#!kubelet")
    (inside / "bin/kubelet").unlink()
    (inside / "bin/kubelet").symlink_to(outside)
    [problem] = bundle.verify(inside)
    assert "leads out of the bundle" in problem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "has schema 2, and this release reads schema 1"),
        ({"schema": None}, "has schema None"),
        ({"name": "etcd"}, "is a bundle of 'etcd'"),
        ({"version": "latest"}, "'latest' is not a Kubernetes version"),
        ({"version": ""}, "version must be a text"),
        ({"architecture": 64}, "architecture must be a text"),
        ({"artifacts": []}, "lists no artifacts"),
        ({"artifacts": ["bin/kubeadm"]}, "artifact 1 must be an object"),
    ],
)
def test_unusable_manifest_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    manifest = write_bundle(tmp_path)
    write_manifest(tmp_path, {**manifest, **change})
    with pytest.raises(BundleError, match=message):
        bundle.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "/usr/bin/kubeadm"}, "must be relative and stay inside"),
        ({"path": "bin/../../kubeadm"}, "must be relative and stay inside"),
        ({"path": "bin//kubeadm"}, "must be relative and stay inside"),
        ({"path": ".."}, "must be relative and stay inside"),
        ({"name": "../kubeadm"}, "must be a plain file name"),
        ({"name": ".."}, "must be a plain file name"),
        ({"kind": "script"}, "kind 'script' is unknown"),
        ({"size": "9"}, "size must be a number of bytes"),
        ({"size": -1}, "size must be a number of bytes"),
        ({"size": True}, "size must be a number of bytes"),
        ({"sha256": "ABC"}, "sha256 must be 64 lower case"),
        ({"image": "k8s.gcr.io/pause:3.2"}, "image must be a reference for kind image"),
        ({"image_id": "sha256:1"}, "image_id must be sha256:"),
        ({"path": "bin/kubelet"}, "lists bin/kubelet twice"),
    ],
)
def test_unusable_artifact_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    manifest = write_bundle(tmp_path)
    manifest["artifacts"][0] |= change
    write_manifest(tmp_path, manifest)
    with pytest.raises(BundleError, match=message):
        bundle.load(tmp_path)


@given(
    parts=st.lists(st.sampled_from(["..", ".", "", "bin", "a b", "...", "kubeadm"]), min_size=1, max_size=6)
)
def test_accepted_paths_stay_inside_the_bundle(parts: list[str]) -> None:
    entry = {"path": "/".join(parts), "kind": "binary", "name": "kubeadm", "size": 0, "sha256": "0" * 64}
    try:
        [artifact] = bundle.parse_artifacts([entry], "test")
    except BundleError:
        return
    root = Path("/srv/bundle")
    assert root in bundle.locate(root, artifact).parents


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("amd64", "amd64")])
def test_architecture_has_the_name_that_kubernetes_uses(machine: str, name: str) -> None:
    assert bundle.architecture_of(machine) == name
