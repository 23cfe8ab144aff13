"""Reading image archives, and writing our own."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import LabError
from lab.bundle import docker_archive, images

from tests.unit.bundle.samples import layer_of, write_docker_archive, write_oci_archive

REFERENCE = "registry.example/thing:1"
Writer = Callable[[Path, str, list[bytes]], None]
both_formats = pytest.mark.parametrize("write", [write_docker_archive, write_oci_archive])


@both_formats
def test_file_of_the_last_layer_wins(tmp_path: Path, write: Writer) -> None:
    write(tmp_path / "a.tar", REFERENCE, [layer_of(("bin/etcd", b"old")), layer_of(("bin/etcd", b"new"))])
    out = images.extract_file(tmp_path / "a.tar", "/bin/etcd", tmp_path / "out/etcd")
    assert out.read_bytes() == b"new"
    assert out.stat().st_mode & 0o777 == 0o755


@both_formats
def test_file_of_a_lower_layer_is_found(tmp_path: Path, write: Writer) -> None:
    write(tmp_path / "a.tar", REFERENCE, [layer_of(("./bin/etcd", b"one")), layer_of(("bin/other", b"two"))])
    assert images.extract_file(tmp_path / "a.tar", "bin/etcd", tmp_path / "etcd").read_bytes() == b"one"


@pytest.mark.parametrize("hiding", ["bin/.wh.etcd", ".wh.bin", "bin/.wh..wh..opq"])
def test_whiteout_hides_the_file_of_lower_layers(tmp_path: Path, hiding: str) -> None:
    write_docker_archive(
        tmp_path / "a.tar", REFERENCE, [layer_of(("bin/etcd", b"one")), layer_of((hiding, b""))]
    )
    with pytest.raises(LabError, match="has no file 'bin/etcd'"):
        images.extract_file(tmp_path / "a.tar", "bin/etcd", tmp_path / "etcd")
    assert not (tmp_path / "etcd").exists()


def test_file_beside_its_own_opaque_mark_is_found(tmp_path: Path) -> None:
    upper = layer_of(("bin/.wh..wh..opq", b""), ("bin/etcd", b"two"))
    write_docker_archive(tmp_path / "a.tar", REFERENCE, [layer_of(("bin/etcd", b"one")), upper])
    assert images.extract_file(tmp_path / "a.tar", "bin/etcd", tmp_path / "etcd").read_bytes() == b"two"


def test_links_are_followed_within_the_image(tmp_path: Path) -> None:
    layers = [
        layer_of(("usr/bin/etcd-3", b"it")),
        layer_of(("bin", None, "usr/bin"), ("usr/bin/etcd", None, "/usr/bin/etcd-3")),
    ]
    write_docker_archive(tmp_path / "a.tar", REFERENCE, layers)
    assert images.extract_file(tmp_path / "a.tar", "/bin/etcd", tmp_path / "etcd").read_bytes() == b"it"


def test_link_above_the_root_stays_in_the_image(tmp_path: Path) -> None:
    layer = layer_of(("etc/passwd", b"image"), ("bin/x", None, "../../../../etc/passwd"))
    write_docker_archive(tmp_path / "a.tar", REFERENCE, [layer])
    assert images.extract_file(tmp_path / "a.tar", "bin/x", tmp_path / "x").read_bytes() == b"image"


def test_circle_of_links_ends(tmp_path: Path) -> None:
    write_docker_archive(tmp_path / "a.tar", REFERENCE, [layer_of(("a", None, "b"), ("b", None, "a"))])
    with pytest.raises(LabError, match="chain of more than 40"):
        images.extract_file(tmp_path / "a.tar", "a", tmp_path / "x")


@both_formats
def test_gzip_layers_are_read(tmp_path: Path, write: Writer) -> None:
    write(tmp_path / "a.tar", REFERENCE, [gzip.compress(layer_of(("bin/etcd", b"zipped")))])
    assert images.extract_file(tmp_path / "a.tar", "bin/etcd", tmp_path / "etcd").read_bytes() == b"zipped"


@both_formats
def test_reference_and_architecture_are_read(tmp_path: Path, write: Writer) -> None:
    write(tmp_path / "a.tar", REFERENCE, [layer_of(("a", b""))])
    [image] = images.read(tmp_path / "a.tar")
    assert (image.references, image.architecture) == ((REFERENCE,), "amd64")


def test_other_files_are_no_image_archives(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(layer_of(("a", b"")))
    with pytest.raises(LabError, match=r"neither manifest\.json nor index\.json"):
        images.read(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(b"no tar at all")
    with pytest.raises(LabError, match="cannot be read as an image archive"):
        images.read(tmp_path / "b.tar")


def _root(directory: Path) -> Path:
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/tool").write_bytes(b"tool")
    (directory / "bin/tool").chmod(0o755)
    (directory / "bin/sh").symlink_to("tool")
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    return directory


def test_written_image_is_read_back(tmp_path: Path) -> None:
    config = docker_archive.ImageConfig("arm64", "/bin", entrypoint=("/bin/tool",))
    image_id = docker_archive.write(tmp_path / "a.tar", REFERENCE, _root(tmp_path / "root"), config)
    [image] = images.read(tmp_path / "a.tar")
    assert (image.image_id, image.references, image.architecture) == (image_id, (REFERENCE,), "arm64")
    assert images.extract_file(tmp_path / "a.tar", "/bin/sh", tmp_path / "sh").read_bytes() == b"tool"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_same_files_give_the_same_archive(tmp_path: Path) -> None:
    config = docker_archive.ImageConfig("amd64", "/bin")
    docker_archive.write(tmp_path / "a.tar", REFERENCE, _root(tmp_path / "one"), config)
    docker_archive.write(tmp_path / "b.tar", REFERENCE, _root(tmp_path / "two"), config)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
