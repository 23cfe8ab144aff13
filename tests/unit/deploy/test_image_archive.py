"""Which image an archive holds."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tortie.cluster.plugins.module_utils.image_archive import ArchiveError, describe

DIGEST = "0123456789abcdef" * 4


def archive(path: Path, manifest: Any) -> Path:
    """A tar archive with this manifest.json."""
    content = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("config", [f"{DIGEST}.json", f"blobs/sha256/{DIGEST}", DIGEST])
def test_manifest_inside_the_archive_names_the_image(tmp_path: Path, config: str) -> None:
    path = archive(tmp_path / "node.tar", [{"Config": config, "RepoTags": ["localhost/tortie-node:0.1.0"]}])
    found = describe(path)
    assert found.name == "localhost/tortie-node:0.1.0"
    assert found.image_id == f"sha256:{DIGEST}"
    assert found.file == str(path)


@pytest.mark.parametrize("image_id", [DIGEST, f"sha256:{DIGEST}"])
def test_description_beside_the_archive_wins(tmp_path: Path, image_id: str) -> None:
    path = tmp_path / "node.tar"
    path.write_bytes(b"not even a tar archive")
    (tmp_path / "node.tar.json").write_text(json.dumps({"name": "localhost/x:1", "image_id": image_id}))
    assert describe(path).as_dict() == {
        "name": "localhost/x:1",
        "image_id": f"sha256:{DIGEST}",
        "file": str(path),
    }


def test_missing_archive_is_named_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"tortie_image_archive is '.*none\.tar', which is no file"):
        describe(tmp_path / "none.tar")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ([], "lists 0 images"),
        ([{"Config": f"{DIGEST}.json", "RepoTags": None}], "lists 1 images; one image with a tag"),
        ([{"Config": "config.json", "RepoTags": ["x:1"]}], "is not named by its digest"),
        ({"schemaVersion": 2}, "does not describe one image"),
    ],
)
def test_other_manifest_is_refused(tmp_path: Path, manifest: Any, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        describe(archive(tmp_path / "node.tar", manifest))


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}', '{"name": "", "image_id": "1"}'])
def test_broken_description_is_refused_with_its_path(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node.tar"
    path.touch()
    (tmp_path / "node.tar.json").write_text(content)
    with pytest.raises(ArchiveError, match=r"node\.tar\.json \(tortie_image_archive\)"):
        describe(path)


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.tar"
    path.write_bytes(b"x" * 2000)
    with pytest.raises(ArchiveError, match="podman save"):
        describe(path)
